"""Local connections, and sending to readers that don't read."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from llamalite.engine.process import sockets
from llamalite.engine.process.sockets import MOST_PATH_BYTES, Outgoing, dial, listen
from llamalite.engine.process.wire import Farewell, FromEngine, Messages, Problem, Refused, frame


def test_a_unix_socket_where_its_path_fits_and_loopback_where_not(tmp_path: Path) -> None:
    long = tmp_path / ("n" * MOST_PATH_BYTES)
    long.mkdir()
    for folder, kind in ((tmp_path, "unix"), (long, "tcp")):
        listener, address = listen(folder, "s")
        with listener, dial(address, 1.0) as ours:
            assert address.startswith(kind)
            theirs, _ = listener.accept()
            with theirs:
                ours.sendall(b"hello")
                assert theirs.recv(9) == b"hello"


def test_a_socket_left_over_is_replaced(tmp_path: Path) -> None:
    first, address = listen(tmp_path, "s")
    first.close()
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the system
        dial(address, 1.0)
    second, _ = listen(tmp_path, "s")
    with second, dial(address, 1.0):
        pass


def test_loopback_alone_is_listened_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MOST_PATH_BYTES", 0)
    listener, _ = listen(tmp_path, "s")
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def read_all(connection: socket.socket) -> list[object]:
    with connection.makefile("rb") as stream:
        messages = Messages(stream, FromEngine)
        found = []
        while (message := messages.read()) is not None:
            found.append(message)
        return found


def message(number: int) -> bytes:
    return frame(Refused(number, Problem("EngineError", "x" * 30_000)))


@pytest.fixture(params=[True, False], ids=["at once", "by its thread"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:
        monkeypatch.setattr(sockets, "_DONT_WAIT", None)


@pytest.mark.usefixtures("way")
def test_frames_arrive_whole_and_in_order_however_slowly_they_are_read() -> None:
    ours, theirs = socket.socketpair()
    outgoing = Outgoing(ours, 100 << 20)
    with ours, theirs:
        for number in range(200):
            assert outgoing.send(message(number))
        found: list[object] = []
        reader = threading.Thread(target=lambda: found.extend(read_all(theirs)))
        reader.start()
        while outgoing._waiting or outgoing._is_sending:
            time.sleep(0.005)
        outgoing.close()
        reader.join(5)
        assert [item.id for item in found] == list(range(200))  # type: ignore[attr-defined]


@pytest.mark.usefixtures("way")
def test_a_reader_that_does_not_read_costs_neither_time_nor_memory() -> None:
    ours, theirs = socket.socketpair()
    outgoing = Outgoing(ours, 1 << 20)
    with ours, theirs:
        started = time.monotonic()
        sent = [outgoing.send(message(number)) for number in range(500)]
        assert time.monotonic() - started < 1
        assert sent[0]
        assert not sent[-1]
        assert outgoing._n_bytes <= (1 << 20) + len(message(0))
        outgoing.end_with(frame(Farewell("too slow")))
        assert outgoing.send(message(7))  # dropped: it is over
        found = read_all(theirs)
        assert found[-1] == Farewell("too slow")
        assert [item.id for item in found[:-1]] == list(range(len(found) - 1))  # type: ignore[attr-defined]


@pytest.mark.usefixtures("way")
def test_one_frame_that_alone_is_too_much_may_wait_beside_others() -> None:
    ours, theirs = socket.socketpair()
    outgoing = Outgoing(ours, 1 << 20)
    with ours, theirs:
        large = frame(Farewell("x" * (2 << 20)))
        while not outgoing._waiting:
            assert outgoing.send(message(1))
        for content in (large, message(2), message(3)):
            assert outgoing.send(content)
        assert not outgoing.send(large)
        outgoing.end_with(frame(Farewell("too slow")))
        assert read_all(theirs)[-1] == Farewell("too slow")


def test_who_never_reads_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_GRACE_S", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outgoing = Outgoing(ours, 1 << 20)
        while outgoing.send(message(1)):
            pass
        outgoing.end_with(frame(Farewell("too slow")))
        outgoing._thread.join(5)
        assert not outgoing._thread.is_alive()


def test_a_reader_that_left_is_no_error(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        outgoing = Outgoing(ours, 1 << 20)
        theirs.close()
        for number in range(5):
            assert outgoing.send(message(number))
        outgoing.close()
        outgoing._thread.join(5)
        assert not outgoing._thread.is_alive()
    assert not os.listdir(tmp_path)
