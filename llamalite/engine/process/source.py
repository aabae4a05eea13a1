"""Where a client finds its engine, and how it gets there.

Imports the standard library, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Protocol

from llamalite.engine.process.auth import introduce
from llamalite.engine.process.rendezvous import State
from llamalite.engine.process.sockets import dial
from llamalite.engine.process.wire import Messages, NoMessage, Welcome
from llamalite.errors import EngineError

_DIAL_LIMIT_S = 5.0
_PAUSE_S = 0.02
_MOST_REFUSALS = 50
"""A process that dies hangs up, too, and its owner needs a moment to know."""
_UNREACHABLE_S = 30.0
"""Longest that an owner may say that a process is ready which nobody can reach."""


class Source(Protocol):
    """Says where an engine is; see `rendezvous.Visitor`."""

    def state(self) -> State:
        """Return what its owner last said."""
        ...

    def wait_ready(self, goes_on: Callable[[], bool]) -> State:
        """Wait until it is ready."""
        ...

    def death_of(self, incarnation: int) -> str | None:
        """Return how one of its processes ended."""
        ...

    def close(self) -> None:
        """Keep the engine no longer."""
        ...

    def begin_anew(self) -> None:
        """Forget, in a fork, what is its parent's."""
        ...


class Approach:
    """Connects to whatever process an owner says is ready, and gives up in the end."""

    def __init__(self) -> None:
        self._n_refusals = 0
        self._target: tuple[int, str] | None = None
        self._since = 0.0

    def connect(self, state: State) -> socket.socket | None:
        """Connect to an engine's process; None after a pause if it can't be reached for now.

        Raises:
            EngineError: it never will be.
        """
        target = (state.incarnation, state.address)
        if target != self._target:
            self._target, self._since = target, time.monotonic()
        try:
            connection = connect(state)
        except OSError as error:  # it has just died, and its owner doesn't know yet
            if time.monotonic() - self._since > _UNREACHABLE_S:
                reason = error.strerror or str(error)
                raise EngineError(
                    f"the engine's process can't be reached ({reason}): close the engine and "
                    "start it again"
                ) from None
        except EngineError:
            self._n_refusals += 1
            if self._n_refusals >= _MOST_REFUSALS:
                raise
        else:
            self._n_refusals, self._target = 0, None
            return connection
        time.sleep(_PAUSE_S)
        return None


def connect(state: State) -> socket.socket:
    """Connect to an engine's process.

    Raises:
        OSError: nothing listens there.
        EngineError: it doesn't take this program in.
    """
    connection = dial(state.address, _DIAL_LIMIT_S)
    try:
        introduce(connection, state.secret)
    except OSError as error:
        connection.close()
        raise EngineError(
            f"the engine's process doesn't take this program in ({error}): close the engine and "
            "start it again"
        ) from None
    except BaseException:
        connection.close()
        raise
    return connection


def welcome(messages: Messages) -> Welcome:
    """Return what an engine says first.

    Raises:
        EngineError: it isn't understood.
        ConnectionError: nothing came.
    """
    try:
        message = messages.read()
    except NoMessage:
        message = ()
    if message is None:
        raise ConnectionError("it hung up at once")
    if not isinstance(message, Welcome):
        raise EngineError(
            "what the engine's process says isn't understood: it belongs to another version of "
            "llamalite: close the programs that use that one"
        )
    return message
