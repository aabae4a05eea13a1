"""Who doesn't know the secret gets in nowhere, on either side."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from llamalite.engine.process import auth
from llamalite.engine.process.auth import admit, introduce, new_secret
from llamalite.errors import EngineError

SECRET = new_secret()


def meet(
    server: Callable[[socket.socket], object], client: Callable[[socket.socket], object]
) -> tuple[object, object]:
    """Run both ends and return what each gave or raised."""
    ours, theirs = socket.socketpair()
    found: list[object] = [None]

    def serve() -> None:
        try:
            found[0] = server(ours)
        except (OSError, EngineError) as error:
            found[0] = error
        finally:
            ours.close()

    thread = threading.Thread(target=serve)
    thread.start()
    with theirs:
        try:
            result: object = client(theirs)
        except (OSError, EngineError) as error:
            result = error
    thread.join()
    return found[0], result


def test_the_same_secret_lets_in() -> None:
    admitted, result = meet(lambda s: admit(s, SECRET), lambda s: introduce(s, SECRET))
    assert admitted is True
    assert result is None


def test_a_wrong_secret_of_the_client_is_refused() -> None:
    admitted, result = meet(lambda s: admit(s, SECRET), lambda s: introduce(s, new_secret()))
    assert admitted is False
    assert isinstance(result, ConnectionError)


def test_a_server_that_accepts_anybody_is_not_believed() -> None:
    def accept_all(connection: socket.socket) -> None:
        connection.sendall(b"llamalite/1\n" + b"n" * 32)
        connection.recv(1000)
        connection.sendall(b"p" * 32)

    _, result = meet(accept_all, lambda s: introduce(s, SECRET))
    assert "doesn't know" in str(result)


def test_a_server_that_gives_the_clients_own_proof_back_is_not_believed() -> None:
    def mirror(connection: socket.socket) -> None:
        connection.sendall(b"llamalite/1\n" + b"n" * 32)
        answer = connection.recv(1000)
        connection.sendall(answer[32:])

    _, result = meet(mirror, lambda s: introduce(s, SECRET))
    assert isinstance(result, EngineError)


def test_another_program_is_told_from_an_engine() -> None:
    _, result = meet(
        lambda s: s.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 99),
        lambda s: introduce(s, SECRET),
    )
    assert "no engine" in str(result)


def test_an_old_proof_is_worth_nothing() -> None:
    recorded: list[bytes] = []

    def client(connection: socket.socket) -> object:
        challenge = connection.recv(44, socket.MSG_WAITALL)
        ours = b"o" * 32
        recorded.append(ours + auth._proof(SECRET, b"client", challenge[12:], ours))
        connection.sendall(recorded[0])
        return connection.recv(32)

    def replay(connection: socket.socket) -> object:
        connection.recv(44)
        connection.sendall(recorded[0])
        return connection.recv(32)

    assert meet(lambda s: admit(s, SECRET), client)[0] is True
    assert meet(lambda s: admit(s, SECRET), replay)[0] is False


@pytest.mark.parametrize("drip", [b"", b"x"])
def test_who_says_nothing_or_too_slowly_is_left(
    drip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "LIMIT_S", 0.2)

    def idle(connection: socket.socket) -> None:
        for _ in range(6):
            time.sleep(0.05)
            connection.sendall(drip)

    started = time.monotonic()
    admitted, _ = meet(lambda s: admit(s, SECRET), idle)
    assert isinstance(admitted, OSError)
    assert time.monotonic() - started < 2
