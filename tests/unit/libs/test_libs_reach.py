from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from llamalite.libs import reach
from llamalite.libs.reach import forget_answers, unreachable_reason


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield server


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_listening_host_is_reachable(listener: socket.socket) -> None:
    assert unreachable_reason(f"http://127.0.0.1:{listener.getsockname()[1]}/any/path") is None


def test_a_refusing_host_says_so_at_once() -> None:
    started = time.monotonic()
    assert unreachable_reason(f"https://127.0.0.1:{closed_port()}") == "refused"
    assert time.monotonic() - started < 2


def test_the_answer_is_kept_until_forgotten() -> None:
    port = closed_port()
    assert unreachable_reason(f"http://127.0.0.1:{port}") == "refused"
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert unreachable_reason(f"http://127.0.0.1:{port}") == "refused"
        forget_answers()
        assert unreachable_reason(f"http://127.0.0.1:{port}") is None


def test_a_bad_answer_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    assert unreachable_reason(f"http://127.0.0.1:{port}") == "refused"
    monkeypatch.setattr(reach, "_FAILURE_KEPT_S", 0.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert unreachable_reason(f"http://127.0.0.1:{port}") is None


def test_a_host_that_swallows_packets_is_given_up_in_time() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        # A full backlog makes Linux drop further connection requests without an answer.
        fillers = [socket.socket() for _ in range(8)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        time.sleep(0.1)
        started = time.monotonic()
        reason = unreachable_reason(f"http://127.0.0.1:{address[1]}", timeout_s=0.5)
        waited = time.monotonic() - started
        for filler in fillers:
            filler.close()
    if reason is None:
        pytest.skip("this system accepts connections beyond the backlog")
    assert reason == "no answer in 0.5 s"
    assert waited < 2


def test_a_name_look_up_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        release.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started = time.monotonic()
    assert unreachable_reason("https://example.invalid", timeout_s=0.3) == "no answer in 0.3 s"
    assert time.monotonic() - started < 2
    release.set()


def test_an_unknown_name_says_so() -> None:
    reason = unreachable_reason("https://no-such-host.invalid")
    assert reason is not None
    assert reason == "name not found" or reason.startswith("no answer")


def test_the_proxy_is_probed_in_the_hosts_place(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = closed_port()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    assert unreachable_reason("https://example.invalid") == f"proxy 127.0.0.1:{port}: refused"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert unreachable_reason(f"https://127.0.0.1:{listener.getsockname()[1]}") is None
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert unreachable_reason("https://other.invalid") is None


@pytest.mark.parametrize("url", ["", "github.com", "https://", "https://[::1", "http://h:99999/"])
def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    assert unreachable_reason(url) == f"{url} is not a URL with a host"
