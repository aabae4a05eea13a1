"""Where a client finds its engine, and how it gets there.

Imports the standard library, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from llamalite.engine.process.auth import introduce
from llamalite.engine.process.rendezvous import State
from llamalite.engine.process.sockets import dial
from llamalite.errors import EngineError

_DIAL_LIMIT_S = 5.0


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
