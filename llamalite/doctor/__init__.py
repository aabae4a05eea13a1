"""What works on this machine, what doesn't, and what to do about it: `diagnose`.

Owns the order of looking, side by side where it takes time, and that nothing it meets stops it.
`report` has the shape of what is found, `native` and `surroundings` find it, `judge` says what it
means. Doesn't know how it is printed. May import everything below `llm`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from llamalite import __version__
from llamalite.core.backend_choice import find_accelerators
from llamalite.doctor import native, surroundings
from llamalite.doctor.judge import judge
from llamalite.doctor.report import Problem, Report, SelfTest
from llamalite.errors import LlamaliteError

__all__ = ["Problem", "Report", "diagnose"]

_T = TypeVar("_T")


def diagnose() -> Report:
    """Look at everything and return what was found; never raises.

    Drivers, sources and the self-test are asked at the same time, each with a limit of its own, so
    that it takes as long as the slowest: seconds, or the self-test's limit where a library hangs.
    """
    problems: list[Problem] = []
    test = _Later(native.self_test)
    drivers = _Later(find_accelerators)
    sources = _Later(surroundings.source_facts)

    def ask(what: str, look: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return look()
        except Exception as error:
            problems.append(_broke_off(what, error))
            return otherwise

    facts = Report(
        version=__version__,
        can_run=True,
        python=ask("the Python", surroundings.python_facts, None),
        platform=ask("the platform", surroundings.platform_facts, None),
        cpu=ask("the processor", surroundings.cpu_facts, None),
        memory=ask("the memory", surroundings.memory_facts, None),
        libraries=ask("the libraries", native.library_facts, ()),
        home=ask("LLAMALITE_HOME", surroundings.home_facts, None),
        models=ask("the models", surroundings.model_facts, ()),
        environment=ask("the environment", surroundings.environment_facts, {}),
        accelerators=ask("the accelerators", drivers.get, None),
        sources=ask("the sources", sources.get, ()),
        self_test=ask("the self-test", test.get, SelfTest("failed", "the self-test broke off")),
        notes=(),
        problems=(),
    )
    nothing: list[Problem | str] = []
    meaning = ask("what that means", lambda: [*judge(facts)], nothing)
    problems += [item for item in meaning if isinstance(item, Problem)]
    return replace(
        facts,
        can_run=not any(problem.is_fatal for problem in problems),
        notes=tuple(item for item in meaning if isinstance(item, str)),
        problems=tuple(sorted(problems, key=lambda problem: not problem.is_fatal)),
    )


def _broke_off(what: str, error: Exception) -> Problem:
    said = " ".join(str(error).split())
    if isinstance(error, LlamaliteError):
        return Problem.of(f"{what} can't be told: {said}", "see the other problems")
    return Problem(f"{what} can't be told: {type(error).__name__}: {said}", "please report this")


class _Later(Generic[_T]):
    """A call that runs in a thread of its own from now on."""

    def __init__(self, call: Callable[[], _T]) -> None:
        self._call = call
        self._outcome: SimpleQueue[tuple[_T | None, Exception | None]] = SimpleQueue()
        Thread(target=self._run, name="llamalite-doctor", daemon=True).start()

    def _run(self) -> None:
        try:
            self._outcome.put((self._call(), None))
        except Exception as error:
            self._outcome.put((None, error))

    def get(self) -> _T:
        """Return what it returned, or raise what it raised."""
        value, error = self._outcome.get()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]
