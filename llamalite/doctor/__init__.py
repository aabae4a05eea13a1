"""What works on this machine, what doesn't, and what to do about it: `diagnose`.

Owns the order of looking, side by side where it takes time, and that nothing it meets stops it.
`report` has the shape of what is found; `native`, `folders` and `surroundings` find it; `judge`
says what it means. Doesn't know how it is printed. May import everything below `llm`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from queue import SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from llamalite import __version__
from llamalite.core.backend_choice import find_accelerators
from llamalite.core.child import close_children
from llamalite.doctor import folders, native, surroundings
from llamalite.doctor.judge import judge
from llamalite.doctor.report import ModelFacts, Problem, Report, SelfTest
from llamalite.errors import LlamaliteError

__all__ = ["Problem", "Report", "diagnose"]

_T = TypeVar("_T")


def diagnose(say: Callable[[str], None] | None = None) -> Report:
    """Look at everything and return what was found; nothing that it meets makes it raise.

    Drivers, sources and the self-test are asked at the same time, each with a limit of its own, so
    that it takes as long as the slowest: seconds, or the self-test's limit where a library hangs.
    Interrupted, it ends the processes that it started.

    Args:
        say: takes a line where the self-test takes long.
    """
    try:
        return _diagnose(say)
    except BaseException:
        close_children()
        raise


def _diagnose(say: Callable[[str], None] | None) -> Report:
    problems: list[Problem] = []
    test = _Later(lambda: native.self_test(say))
    drivers = _Later(find_accelerators)
    sources = _Later(surroundings.source_facts)

    def ask(what: str, look: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return look()
        except Exception as error:
            problems.append(_broke_off(what, error))
            return otherwise

    astray = ask("the folders", folders.folder_problem, None)
    no_models: tuple[tuple[ModelFacts, ...], tuple[str, ...]] = ((), ())
    models, unreadable = ask("the models", folders.model_facts, no_models)
    facts = Report(
        version=__version__,
        can_run=True,
        python=ask("the Python", surroundings.python_facts, None),
        platform=ask("the platform", surroundings.platform_facts, None),
        cpu=ask("the processor", surroundings.cpu_facts, None),
        memory=ask("the memory", surroundings.memory_facts, None),
        libraries=ask("the libraries", native.library_facts, ()),
        home=ask("LLAMALITE_HOME", folders.home_facts, None),
        models=models,
        unreadable=unreadable,
        environment=ask("the environment", surroundings.environment_facts, {}),
        accelerators=ask("the accelerators", drivers.get, None),
        sources=ask("the sources", sources.get, ()),
        self_test=ask("the self-test", test.get, SelfTest("failed", "the self-test broke off")),
        notes=(),
        problems=(),
    )
    meaning: list[Problem | str] = []
    if astray is not None:  # whatever else went wrong comes from that
        problems = [astray]
    else:
        meaning = ask("what that means", lambda: [*judge(facts)], meaning)
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
    if isinstance(error, OSError) and sys.platform == "linux" and not os.path.exists("/proc/self"):
        return Problem(f"{what} can't be told: /proc isn't mounted", "mount it")
    return Problem(f"{what} can't be told: {type(error).__name__}: {said}", "please report this")


class _Later(Generic[_T]):
    """A call that runs in a thread of its own from now on, or in `get` if there can be none."""

    def __init__(self, call: Callable[[], _T]) -> None:
        self._call = call
        self._outcome: SimpleQueue[tuple[_T | None, Exception | None]] = SimpleQueue()
        thread = Thread(target=self._run, name="llamalite-doctor", daemon=True)
        self._has_thread = True
        try:
            thread.start()
        except RuntimeError:  # there is no room for one
            self._has_thread = False

    def _run(self) -> None:
        try:
            self._outcome.put((self._call(), None))
        except Exception as error:
            self._outcome.put((None, error))

    def get(self) -> _T:
        """Return what it returned, or raise what it raised."""
        if not self._has_thread:
            return self._call()
        value, error = self._outcome.get()
        if error is not None:
            raise error
        return value  # type: ignore[return-value]
