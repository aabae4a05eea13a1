"""Engines shared by several programs: one host, elected, which ends after its last program."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.fake_engine import SILENT
from support.processes import is_gone, wait_until

from llamalite.core.child import environment
from llamalite.engine.process import host as host_module
from llamalite.engine.process.client import EngineClient
from llamalite.engine.process.host import host_folder, read_notice
from llamalite.engine.process.shared import HostSource, start_host
from llamalite.engine.request import GenerationRequest
from llamalite.errors import DoesNotFit, EngineClosed, EngineError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")

# The host's main, but for the engine's factory and patience.
_MAIN = """
from support import fake_engine
from llamalite.engine.process import host
folder = host.host_folder()
lock = host.open_lock(folder / "lock", 0o600)
if host.try_lock(lock):
    host.Host(folder, fake_engine.FACTORY, linger_s=0.3).run()
"""


class Hosts:
    """Starts hosts of fake engines and knows them."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.started.append(subprocess.Popen([sys.executable, "-c", _MAIN], env=environment()))

    @property
    def alive(self) -> list[int]:
        return [process.pid for process in self.started if process.poll() is None]


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    made = Hosts()
    yield made
    for process in made.started:
        process.kill()
        process.wait()


def client(hosts: Hosts, **arguments: object) -> EngineClient:
    return EngineClient(HostSource(arguments, lambda _line: None, start=hosts))


def engines_of(pid: int) -> list[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [process.pid for process in psutil.Process(pid).children()]
    return []


def test_programs_that_come_at_once_share_one_host_and_one_engine(hosts: Hosts) -> None:
    clients = [client(hosts) for _ in range(3)]
    threads = [threading.Thread(target=one.start) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    other = client(hosts, step_s=0.002)  # another engine, because it asks for something else
    for one in (*clients, other):
        assert one.submit(GenerationRequest([1])).result().finish_reason == "length"
    wait_until(lambda: len(hosts.alive) == 1)
    (pid,) = hosts.alive
    notice = read_notice(host_folder())
    assert notice is not None
    assert notice.pid == pid
    assert len(engines_of(pid)) == 2
    other.close()
    wait_until(lambda: len(engines_of(pid)) == 1)  # nobody uses the other any more
    for one in clients:
        one.close()
    wait_until(lambda: not hosts.alive)
    assert read_notice(host_folder()) is None
    assert not list(host_folder().parent.glob("e*"))


def test_deaths_of_engines_and_hosts_and_failures_cost_no_more_than_themselves(
    hosts: Hosts,
) -> None:
    with client(hosts) as one:
        one.start()
        (pid,) = hosts.alive
        for _ in range(2):
            other = client(hosts, fail=True)
            with pytest.raises(DoesNotFit, match="9 GB"):
                other.start()
            other.close()
        wait_until(lambda: len(list(host_folder().parent.glob("e*"))) == 1)
        os.kill(engines_of(pid)[0], signal.SIGKILL)
        assert one.submit(GenerationRequest([1])).result().finish_reason == "length"
        assert one.stats().n_restarts == 1
        waiting = one.submit(GenerationRequest([SILENT]))
        (engine,) = engines_of(pid)
        os.kill(pid, signal.SIGKILL)
        assert one.submit(GenerationRequest([1])).result().finish_reason == "length"
        waiting.cancel()
        assert waiting.result().finish_reason == "cancelled"
        wait_until(lambda: is_gone(engine), 2)
        assert len(hosts.alive) == 1


def test_closing_waits_for_no_load(hosts: Hosts) -> None:
    source = HostSource({"load_s": 20}, lambda _line: loading.set(), start=hosts)
    loading, ended = threading.Event(), threading.Event()
    one = EngineClient(source)

    def start() -> None:
        with pytest.raises(EngineClosed):
            one.start()
        ended.set()

    threading.Thread(target=start, daemon=True).start()
    assert loading.wait(10)
    started = time.monotonic()
    one.close()
    assert ended.wait(1)
    assert time.monotonic() - started < 1.5
    for ask in (source.state, lambda: source.wait_ready(lambda: True), one.start):
        with pytest.raises(EngineClosed):
            ask()
    assert source._lease is None


def test_a_fork_keeps_the_engine_itself(hosts: Hosts) -> None:
    one = client(hosts)
    one.start()
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            one.submit(GenerationRequest([1])).result()
            os.write(writing, b"x")
            time.sleep(0.8)  # the parent's client is closed meanwhile
            tokens = one.submit(GenerationRequest([30])).result().tokens
            n_restarts = one.stats().n_restarts
            one.close()
            os._exit(0 if tokens[0] == 31 and not n_restarts else 1)
        os._exit(2)
    os.read(reading, 1)
    one.close()
    assert os.waitpid(pid, 0)[1] == 0
    assert len(hosts.started) == 1
    os.close(reading)
    os.close(writing)


def test_each_configuration_has_its_own_host(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    first = host_folder()
    monkeypatch.setenv("LLAMALITE_LOG", "debug")
    assert host_folder() == first
    monkeypatch.setenv("LLAMALITE_N_CTX", "77")
    second = host_folder()
    (home / "config.toml").write_text("n_ctx = 78\n")
    assert len({first, second, host_folder()}) == 3


def test_the_real_main_leaves_its_starter_and_ends_without_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(host_module, "LINGER_S", 0.0)
    folder = host_folder()
    start_host(folder)
    wait_until(lambda: read_notice(folder) is not None, 10)
    notice = read_notice(folder)
    assert notice is not None
    host = psutil.Process(notice.pid)
    assert host.ppid() != os.getpid()
    assert not host.children()
    host.kill()


def test_a_host_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamalite.engine.process.shared._START_LIMIT_S", 0.2)

    def start(folder: Path) -> None:
        folder.mkdir()
        (folder / "log").write_text("Traceback\nOSError: no room\n")

    one = EngineClient(HostSource({}, start=start))
    with pytest.raises(EngineError, match=r"doesn't start \(OSError: no room\)"):
        one.start()
    one.close()
    monkeypatch.setenv("LLAMALITE_PYTHON", "/nowhere/python")
    with pytest.raises(EngineError, match="can't be started"):
        start_host(host_folder())
