from __future__ import annotations

import _thread
import socket
import ssl
import threading
import time
from typing import Any

import pytest
from support.unreachable_hosts import UNREACHABLE, answering, closed_port, silent, swallowing

from llamalite.libs.transfer import reach, web
from llamalite.libs.transfer.reach import forget_answers, unreachable_reason


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404, 405, 429, 500, 503])
def test_any_status_is_an_answer(status: int) -> None:
    with answering(status, f"http://127.0.0.1:{closed_port()}/") as (url, asked):
        assert unreachable_reason(f"{url}/any/path?secret=1") is None
        assert asked == ["HEAD / HTTP/1.1"]


def test_credentials_stay_here() -> None:
    with answering() as (url, _):
        assert unreachable_reason(url.replace("//", "//user:secret@")) is None
    forget_answers()
    reason = unreachable_reason(f"http://user:secret@127.0.0.1:{closed_port()}")
    assert reason == "refused"


def test_a_refusing_host_says_so_at_once() -> None:
    started = time.monotonic()
    assert unreachable_reason(f"https://127.0.0.1:{closed_port()}") == "refused"
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("how", ["swallowing", "silent"])
def test_a_host_that_never_answers_is_given_up_in_time(how: str, scheme: str) -> None:
    with UNREACHABLE[how]() as url:
        started = time.monotonic()
        reason = unreachable_reason(url.replace("http:", f"{scheme}:"), timeout_s=0.5)
        assert reason == "no answer in 0.5 s"
        assert time.monotonic() - started < 2


def test_a_host_that_drips_is_given_up_in_time() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def drip() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    for _ in range(100):
                        connection.sendall(b"H")
                        time.sleep(0.1)
                except OSError:
                    return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        started = time.monotonic()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert unreachable_reason(url, timeout_s=0.5) == "no answer in 0.5 s"
        assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"", "it closed the connection"), (b"SSH-2.0-x\r\n", "it doesn't speak HTTP")],
)
def test_an_answer_that_is_no_http(answer: bytes, reason: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def hang_up() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        threading.Thread(target=hang_up, daemon=True).start()
        assert unreachable_reason(f"http://127.0.0.1:{server.getsockname()[1]}") == reason


def test_what_tls_complains_of_is_an_answer_but_for_a_cut_line() -> None:
    alert = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]")
    assert reach._plainly(alert, 1.0) is None
    assert reach._plainly(ssl.SSLCertVerificationError(1, "self-signed"), 1.0) is None
    assert reach._plainly(ssl.SSLEOFError(8, "EOF"), 1.0) == "it closed the connection"


def test_the_answer_is_kept_until_forgotten() -> None:
    with answering() as (url, asked):
        assert unreachable_reason(url) is None
        assert unreachable_reason(url + "/more") is None
        assert len(asked) == 1
    assert unreachable_reason(url) is None
    forget_answers()
    assert unreachable_reason(url) == "refused"
    assert unreachable_reason(url) == "refused"


def test_a_bad_answer_is_asked_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent() as url:
        assert unreachable_reason(url, timeout_s=0.2) is not None
    monkeypatch.setattr(reach, "_FAILURE_KEPT_S", 0.0)
    assert unreachable_reason(url) == "refused"


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


def test_the_proxy_is_asked_in_the_hosts_place(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    assert unreachable_reason("https://example.invalid") == f"proxy 127.0.0.1:{port}: refused"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with answering() as (url, _):
        assert unreachable_reason(url) is None
    monkeypatch.delenv("https_proxy")
    monkeypatch.setenv("no_proxy", "")
    with answering(404) as (proxy, asked):
        assert unreachable_reason("http://far.invalid/x", proxy=proxy) is None
        assert asked == ["HEAD http://far.invalid:80/ HTTP/1.1"]
        assert unreachable_reason("http://far.invalid/x", proxy="") is not None


@pytest.mark.parametrize("status", [403, 407, 502])
def test_a_proxy_that_refuses_the_tunnel_is_no_way_there(status: int) -> None:
    with answering(status) as (proxy, asked):
        reason = unreachable_reason("https://far.invalid", proxy=proxy)
        assert reason is not None
        assert str(status) in reason
        assert "proxy 127.0.0.1" in reason
        assert asked == ["CONNECT far.invalid:443 HTTP/1.0"] or asked == [
            "CONNECT far.invalid:443 HTTP/1.1"
        ]


@pytest.mark.parametrize("status", [407, 502, 503, 504])
def test_a_proxy_that_cannot_get_there_is_no_way_there(status: int) -> None:
    with answering(status) as (proxy, _):
        reason = unreachable_reason("http://far.invalid", proxy=proxy)
    assert reason is not None
    assert f"it answered {status}" in reason


@pytest.mark.parametrize("kind", [silent, swallowing])
def test_a_proxy_that_never_answers_is_given_up_in_time(kind: object) -> None:
    with kind() as proxy:  # type: ignore[operator]
        started = time.monotonic()
        reason = unreachable_reason("https://far.invalid", timeout_s=0.5, proxy=proxy)
        assert reason is not None
        assert reason.endswith(": no answer in 0.5 s")
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("url", ["", "github.com", "https://", "https://[::1", "http://h:99999/"])
def test_what_is_no_url_is_said_to_be_none(url: str) -> None:
    assert unreachable_reason(url) == f"{url} is not a URL with a host"


@pytest.mark.parametrize(
    "proxy",
    ["http://h:99999", "socks5://h:xx", "http://user:secret@x:yy", "http://", "http://[::1", "x:y"],
)
def test_a_proxy_that_is_no_address_is_blamed_itself(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    shown = "http://x:y" if proxy == "x:y" else proxy.replace("user:secret", "…")
    reason = unreachable_reason("https://github.invalid")
    assert reason == f"the proxy {shown} (HTTPS_PROXY) is no address"
    reason = unreachable_reason("https://github.invalid", proxy=proxy)
    assert reason == f"the proxy {shown} (of the client's own settings) is no address"


def test_whatever_a_probe_raises_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_ask", lambda *_: 1 // 0)
    reason = unreachable_reason(f"http://127.0.0.1:{closed_port()}")
    assert reason == "it can't be asked (ZeroDivisionError)"


def test_no_thread_sets_up_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL dies where a daemon thread loads certificates while Python exits."""
    makers: list[threading.Thread] = []
    make = ssl.SSLContext.__new__

    def noted(cls: type[ssl.SSLContext], *given: Any, **named: Any) -> ssl.SSLContext:
        makers.append(threading.current_thread())
        return make(cls, *given, **named)

    monkeypatch.setattr(ssl.SSLContext, "__new__", noted)
    for context in (reach._any_certificate, web._tls):
        context.cache_clear()
    url = f"https://127.0.0.1:{closed_port()}"
    assert unreachable_reason(url) == "refused"
    for ask in (lambda: web.read_small(url, 9), lambda: web.open_url(url)):
        with pytest.raises(web.Unanswered):
            ask()
    assert set(makers) == {threading.main_thread()}


def test_an_interrupted_wait_lets_the_thread_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    def interrupt(*_: object) -> str:
        time.sleep(0.05)
        _thread.interrupt_main()
        time.sleep(0.15)
        ended.append(True)
        return ""

    with pytest.raises(KeyboardInterrupt):
        web.within(5, interrupt)
    assert ended == [True]
    monkeypatch.setattr(reach, "_ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unreachable_reason("http://127.0.0.1:9")
    assert ended == [True, True]


def test_a_password_with_a_slash_in_it_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hun/ter2@proxy.invalid:99999")
    monkeypatch.delenv("https_proxy", raising=False)
    said = reach.unreachable_reason("https://github.invalid") or ""
    assert "proxy.invalid" in said
    assert "ter2" not in said
