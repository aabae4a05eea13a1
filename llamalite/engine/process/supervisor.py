"""EngineProcess: an engine in a process of its own, started anew when it dies.

Owns when the process is started and given up. Doesn't know what requests are; its client does.
Imports the standard library, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llamalite.engine.process.auth import new_secret
from llamalite.engine.process.backoff import Backoff
from llamalite.engine.process.client import EngineClient
from llamalite.engine.process.crossing import error_of, problem_of
from llamalite.engine.process.launch import Launch
from llamalite.engine.process.loader import FACTORY, Model, arguments_for
from llamalite.engine.process.rendezvous import CLOSED, FAILED, READY, Owner, Visitor
from llamalite.engine.process.wire import Failed, Problem, Ready, Start
from llamalite.engine.request import EngineOptions
from llamalite.errors import EngineClosed, EngineCrashed, EngineError, LlamaliteError
from llamalite.libs.transfer.progress import say_on_stderr

Say = Callable[[str], None]

_log = logging.getLogger("llamalite.engine")
logging.getLogger("llamalite").addHandler(logging.NullHandler())
_POLL_S = 0.1
_CLOSE_LIMIT_S = 10.0


class Supervisor:
    """Keeps a process of an engine running, in a thread of its own.

    Args:
        arguments: for the factory.
        factory: "module:function" that makes the engine, called in the process.
        say: takes lines while it loads for the first time.

    Attributes:
        folder: where the engine can be found.
    """

    def __init__(self, arguments: Mapping[str, Any], factory: str, say: Say | None) -> None:
        self._owner = Owner()
        self.folder: Path = self._owner.folder
        self._say = say or say_on_stderr
        self._start = Start(
            factory=factory,
            arguments=dict(arguments),
            folder=str(self.folder),
            name="s",
            secret=new_secret(),
            log_level=_log_level(),
        )
        self._launch: Launch | None = None
        self._lock = threading.Lock()
        self._first = threading.Event()  # set once it is ready for the first time, or never will be
        self._closing = threading.Event()
        self._pid = os.getpid()
        # The process dies with the thread that started it, so it is this thread that does.
        self._thread = threading.Thread(target=self._run, name="llamalite-supervisor", daemon=True)
        self._thread.start()
        _alive.add(self)

    @property
    def pid(self) -> int | None:
        """Number of the process that runs or was last."""
        launch = self._launch
        return None if launch is None else launch.pid

    @property
    def is_gone(self) -> bool:
        """Say whether it was given up or closed."""
        return self._owner.state.status in (FAILED, CLOSED)

    def wait_ready(self) -> None:
        """Wait until it is ready for the first time.

        Raises:
            LlamaliteError: it can't be loaded.
        """
        while not self._first.wait(_POLL_S):  # without a limit it can't be interrupted on Windows
            pass
        state = self._owner.state
        if state.problem is not None:  # also if it was closed since
            raise error_of(state.problem)
        if self._closing.is_set():
            raise EngineClosed("the engine was closed while it was loaded")

    def drain(self, timeout_s: float) -> bool:
        """Let the engine finish what it has and take nothing more; whether it did in time."""
        launch = self._launch
        return launch is None or launch.drain(timeout_s)

    def close(self) -> None:
        """End the process."""
        if self._pid != os.getpid():
            return  # a fork owns nothing
        _alive.discard(self)
        with self._lock:
            self._closing.set()
            launch = self._launch
        if launch is not None:
            launch.stop()
        self._thread.join(_CLOSE_LIMIT_S)
        self._owner.close()

    def _run(self) -> None:
        backoff = Backoff()
        try:
            while not self._closing.is_set():
                delay = self._run_once(backoff)
                if delay is None:
                    break
                self._closing.wait(delay)
        except Exception as error:  # whoever waits must hear of it
            self._give_up(problem_of(error))
            if not isinstance(error, LlamaliteError):
                _log.exception("the engine's supervisor failed")
        finally:
            self._first.set()

    def _run_once(self, backoff: Backoff) -> float | None:
        """Start the process and wait for its end; return how long to wait, None to give up."""
        with self._lock:
            if self._closing.is_set():
                return None
            launch = self._launch = Launch(self._start)
        try:
            outcome = launch.wait_ready(_log.info if self._first.is_set() else self._say)
            if isinstance(outcome, Ready):
                return self._serve(launch, outcome, backoff)
            if isinstance(outcome, Failed):
                launch.wait_end()
            if self._closing.is_set():
                return None
            return self._not_loaded(launch, outcome, backoff)
        finally:
            launch.kill()
            launch.close()

    def _serve(self, launch: Launch, ready: Ready, backoff: Backoff) -> float | None:
        started = time.monotonic()
        incarnation = self._owner.state.incarnation + 1
        is_said = self._owner.say(
            status=READY,
            incarnation=incarnation,
            address=ready.address,
            secret=self._start.secret,
        )
        if not is_said:
            raise EngineError(
                f"{self.folder} can't be written, so nobody would find the engine: make room there"
            )
        self._first.set()
        launch.wait_end()
        if self._closing.is_set():
            return None
        ending = launch.ending()
        _log.warning("the engine's process died (%s) and is started anew", ending)
        self._owner.died(ending)
        return backoff.died(time.monotonic() - started)

    def _not_loaded(self, launch: Launch, outcome: Failed | None, backoff: Backoff) -> float | None:
        is_first = self._owner.state.incarnation == 0
        if outcome is not None and is_first:
            self._give_up(outcome.problem)
            return None
        delay = backoff.died(None)
        if delay is not None:
            return delay
        if outcome is not None:
            self._give_up(outcome.problem)
            return None
        path = self._start.arguments.get("path", "the model")
        self._give_up(
            problem_of(
                EngineCrashed(
                    f"the engine's process died {backoff.n_at_load} times while loading {path} "
                    f"({launch.ending()}): run 'llamalite doctor', or try another build of "
                    "libllama or another file of the model"
                )
            )
        )
        return None

    def _give_up(self, problem: Problem) -> None:
        if self._owner.state.status == CLOSED:
            return
        if not self._owner.say(status=FAILED, address="", problem=problem):
            self._owner.abandon()


class EngineProcess(EngineClient):
    """An engine in a child process, with the methods of Engine.

    The child ends with this process, however that ends. When the child dies, it is started anew:
    requests that had brought nothing yet are submitted again once, others raise EngineCrashed.

    Args:
        arguments: for the factory.
        factory: "module:function" that makes the engine in the child.
        say: takes lines while it loads; None = stderr.

    Raises:
        LlamaliteError: it can't be loaded.
    """

    def __init__(
        self, arguments: Mapping[str, Any], factory: str = FACTORY, say: Say | None = None
    ) -> None:
        self._supervisor = Supervisor(arguments, factory, say)
        try:
            self._supervisor.wait_ready()
        except BaseException:
            self._supervisor.close()
            raise
        super().__init__(Visitor(self._supervisor.folder))

    @classmethod
    def load(
        cls,
        model: Model = None,
        options: EngineOptions | None = None,
        *,
        say: Say | None = None,
        force: bool = False,
        **settings: Any,
    ) -> EngineProcess:
        """Load a model into a process of its own; arguments and errors as of `Engine.load`."""
        return cls(arguments_for(model, options, settings, say=say, force=force), say=say)

    @property
    def folder(self) -> Path:
        """Where other programs of this user find it; see `rendezvous.Visitor`."""
        return self._supervisor.folder

    @property
    def pid(self) -> int | None:
        """Number of the child process that runs or was last."""
        return self._supervisor.pid

    def drain(self, timeout_s: float) -> bool:
        """Take no more requests and finish those of all clients; whether they ended in time."""
        deadline = time.monotonic() + timeout_s
        in_time = self._supervisor.drain(timeout_s)
        return super().drain(max(deadline - time.monotonic(), 0.0)) and in_time

    def close(self) -> None:
        """End the child process; requests under way raise EngineClosed."""
        super().close()
        self._supervisor.close()


_alive: weakref.WeakSet[Supervisor] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for supervisor in list(_alive):
        supervisor.close()


def _log_level() -> int:
    """Return the level of lines that this process would show, at most WARNING."""
    native = logging.getLogger("llamalite.native")
    return min(native.getEffectiveLevel(), logging.WARNING)
