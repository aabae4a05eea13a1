"""Where an engine's process can be found: a private folder with its socket and its state.

The owner holds a lock in the folder as long as it lives and writes `state.json` anew whenever the
engine's process starts, is ready, dies or is given up. Any other process of the user that knows
the folder reads it. Folders whose owner is gone are swept away. Imports msgspec, the standard
library, `llamalite.config`, `llamalite.errors`, `llamalite.locks` and its siblings.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from llamalite.config.places import home
from llamalite.engine.process.crossing import error_of
from llamalite.engine.process.wire import Problem
from llamalite.errors import EngineClosed, EngineError
from llamalite.locks import open_lock, try_lock

_T = TypeVar("_T")

_log = logging.getLogger("llamalite.engine")
STARTING, READY, FAILED, CLOSED = "starting", "ready", "failed", "closed"

_LOCK, _STATE = "lock", "state.json"
_PAUSE_S = 0.01
_MOST_PAUSE_S = 0.1
_KEPT_DEATHS = 8
_RETRY_S = 1.0
"""On Windows a file can't be replaced while somebody reads it, nor read amid that."""
_YOUNG_S = 60.0


class State(msgspec.Struct, frozen=True):
    """What the owner says.

    Attributes:
        status: STARTING (the process is loading, or about to be started anew), READY, FAILED
            (given up) or CLOSED.
        incarnation: number of the process that is ready, or was last; 0 = none yet.
        address: where it listens.
        secret: what its clients must know.
        deaths: how those processes ended that weren't told to, by incarnation; the last few.
        n_restarts: how often it was started anew.
        problem: why it was given up.
    """

    status: str
    incarnation: int = 0
    address: str = ""
    secret: bytes = b""
    deaths: dict[int, str] = {}
    n_restarts: int = 0
    problem: Problem | None = None


def run_folder() -> Path:
    """Return the folder for sockets and locks, made private to the user.

    It is `run` under LLAMALITE_HOME, or a folder of its own among the temporary files where that
    can't be written or isn't the user's.

    Raises:
        EngineError: neither can be made.
    """
    folder = home() / "run"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(folder):
            return folder
    except OSError:
        pass
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"llamalite-{user}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if _is_private(folder):
            return folder
        reason = "it belongs to someone else"
    except OSError as error:
        reason = error.strerror or str(error)
    raise EngineError(
        f"there is no private folder for the engine's socket: {folder} can't be used ({reason}): "
        f"make {home() / 'run'} writable, or set LLAMALITE_HOME or TMPDIR to a folder that is"
    )


def _is_private(folder: Path) -> bool:
    """Say whether a folder is the user's own and writable, taking others' rights if it is."""
    if not hasattr(os, "getuid"):
        return os.access(folder, os.W_OK)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return False
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
    return os.access(folder, os.W_OK)


def locked_folder(within: Path) -> tuple[Path, int]:
    """Make a private folder that lives as long as the handle, or its process, does.

    Raises:
        OSError: it can't be made.
    """
    folder = Path(tempfile.mkdtemp(prefix="e", dir=within))
    handle = open_lock(folder / _LOCK, 0o600)
    try_lock(handle)
    return folder, handle


def sweep(within: Path) -> None:
    """Remove folders whose owner is gone."""
    for folder in within.glob("e*"):
        with contextlib.suppress(OSError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > _YOUNG_S:
                _remove_unless_owned(folder)


def _remove_unless_owned(folder: Path) -> None:
    handle = open_lock(folder / _LOCK, 0o600)
    try:
        if try_lock(handle):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def _patiently(do: Callable[[], _T]) -> _T:
    """Do something with a file; an error other than its absence has a moment to pass."""
    deadline = time.monotonic() + _RETRY_S
    while True:
        try:
            return do()
        except FileNotFoundError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)


class Owner:
    """The owner's side: a folder of its own, and what is said in it.

    Attributes:
        folder: the folder.

    Raises:
        EngineError, OSError: there is no place for it.
    """

    def __init__(self) -> None:
        within = run_folder()
        sweep(within)
        self.folder, self._handle = locked_folder(within)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.state = State(STARTING)
        self._write()
        _owners.add(self)

    def say(self, **changes: object) -> bool:
        """Change what is said, fields of State; False if it can't be written."""
        with self._lock:
            self.state = msgspec.structs.replace(self.state, **changes)
            try:
                _patiently(self._write)
            except OSError as error:
                _log.warning("%s can't be written: %s", self.folder / _STATE, error)
                return False
            return True

    def died(self, ending: str) -> None:
        """Say that the process which was ready has died, and that another is to come."""
        deaths = {**self.state.deaths, self.state.incarnation: ending}
        kept = dict(list(deaths.items())[-_KEPT_DEATHS:])
        self.say(status=STARTING, address="", deaths=kept, n_restarts=self.state.n_restarts + 1)

    def close(self) -> None:
        """Say that it is over and remove the folder."""
        self.say(status=CLOSED, address="")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.let_go()

    def abandon(self) -> None:
        """Make visitors see that it is over, though nothing can be written."""
        with contextlib.suppress(OSError):
            (self.folder / _STATE).unlink()
        self.let_go()

    def let_go(self) -> None:
        """Drop the lock, or a fork's copy of it."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _write(self) -> None:
        if self._pid != os.getpid():
            return
        new = self.folder / (_STATE + ".new")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            stream.write(msgspec.json.encode(self.state))
        os.replace(new, self.folder / _STATE)


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def _let_go_after_fork() -> None:
    # A fork that outlives the owner would keep the lock, and nobody would see that it is gone.
    for owner in list(_owners):
        owner.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_after_fork)


class Visitor:
    """Everybody else's side.

    Args:
        folder: the owner's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def close(self) -> None:
        """Do nothing: a visitor keeps nothing."""

    def begin_anew(self) -> None:
        """Do nothing: a fork may visit, too."""

    def state(self) -> State:
        """Return what the owner last said.

        Raises:
            EngineClosed: the owner is gone.
        """
        try:
            content = _patiently((self._folder / _STATE).read_bytes)
            return msgspec.json.decode(content, type=State)
        except (OSError, msgspec.MsgspecError):
            raise EngineClosed("the engine was closed: start it again") from None

    def has_owner(self) -> bool:
        """Say whether the process lives that owns the engine."""
        try:
            handle = os.open(self._folder / _LOCK, os.O_RDWR)
        except OSError:
            return False
        try:
            return not try_lock(handle)
        except OSError:
            return True  # no locks here: it can't be told
        finally:
            os.close(handle)

    def wait_ready(self, goes_on: Callable[[], bool]) -> State:
        """Wait until the engine is ready, as long as it takes and `goes_on` says so.

        Raises:
            EngineClosed: the engine was closed, its owner is gone, or `goes_on` says no.
            LlamaliteError: it was given up; as which error, its owner says.
        """
        pause = _PAUSE_S
        while goes_on():
            state = self.state()
            if state.status == READY and self.has_owner():
                return state
            if state.status == FAILED and state.problem is not None:
                raise error_of(state.problem)
            if state.status == CLOSED:
                raise EngineClosed("the engine was closed: start it again")
            if not self.has_owner():
                raise EngineClosed(
                    "the process that owned the engine is gone, and the engine with it: start it "
                    "again"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _MOST_PAUSE_S)
        raise EngineClosed("the engine was closed meanwhile")

    def death_of(self, incarnation: int, limit_s: float = 2.0) -> str | None:
        """Return how a process of the engine ended, once its owner knows; None if it lives on."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            try:
                state = self.state()
            except EngineClosed:
                return None
            if incarnation in state.deaths:
                return state.deaths[incarnation]
            is_over = state.incarnation != incarnation or state.status in (CLOSED, FAILED)
            if is_over or not self.has_owner():
                return None
            time.sleep(_PAUSE_S)
        return None
