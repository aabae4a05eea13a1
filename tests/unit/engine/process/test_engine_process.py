"""An engine in a process of its own: what its death costs, and that nothing outlives its owner."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import fake_engine
from support.fake_engine import DEADLY, FACTS, SILENT
from support.processes import is_gone, wait_until

from llamalite.config import SamplingConfig
from llamalite.core.child import command_for, environment
from llamalite.engine.handle import Generation
from llamalite.engine.process import backoff, rendezvous
from llamalite.engine.process.child import MODULE
from llamalite.engine.process.client import EngineClient
from llamalite.engine.process.launch import Launch as Launch_
from llamalite.engine.process.pending import Pending
from llamalite.engine.process.rendezvous import Owner, Visitor
from llamalite.engine.process.supervisor import EngineProcess
from llamalite.engine.process.wire import FromChild, Messages, Ready, Start, ToEngine, frame
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.errors import (
    DoesNotFit,
    EngineClosed,
    EngineCrashed,
    EngineError,
    InvalidParameter,
    LlamaliteError,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills by signals")

Launch = Callable[..., EngineProcess]
SUPPORT = str(Path(fake_engine.__file__).parents[1])


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine that nobody kills."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMALITE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("PYTHONPATH", SUPPORT)
        engine = EngineProcess({}, fake_engine.FACTORY, say=lambda _line: None)
    yield engine
    engine.close()


def test_a_life_without_accidents(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    with caplog.at_level(logging.INFO, "llamalite"):
        arguments = {"log": "ggml: a word", "step_s": 0.02}
        engine = EngineProcess(arguments, fake_engine.FACTORY, say=said.append)
    pid, folder = engine.pid, engine.folder
    assert pid is not None
    assert engine.facts == FACTS
    assert engine.submit(GenerationRequest([10])).result().tokens == [11, 12, 13, 14, 15]
    assert said == [f"loading in {pid}"]
    for level, line in ((logging.WARNING, "ggml: a word"), (logging.ERROR, "a logged | word")):
        wait_until(lambda r=("llamalite.native", level, line): r in caplog.record_tuples)
    assert folder.is_relative_to(home)
    assert folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in folder.glob("*.json"))
    last, going_on = (engine.submit(GenerationRequest([start])) for start in (5, SILENT))
    assert engine.drain(0.3) is False
    assert last.result().finish_reason == "length"
    with pytest.raises(EngineClosed):
        engine.submit(GenerationRequest([1]))
    with EngineClient(Visitor(folder)) as other, pytest.raises(EngineClosed):
        other.submit(GenerationRequest([1]))
    going_on.cancel()
    assert engine.drain(5) is True
    started = time.monotonic()
    engine.close()
    assert time.monotonic() - started < 2
    assert going_on.result().finish_reason == "cancelled"
    assert is_gone(pid)
    assert not folder.exists()
    with pytest.raises(EngineClosed):
        engine.submit(GenerationRequest([1]))
    engine.close()  # once is enough, twice does no harm


def test_requests_end_when_it_is_closed(launch: Launch) -> None:
    engine = launch(step_s=0.01, close_s=0.3)
    with EngineClient(Visitor(engine.folder)) as other:
        begun = other.submit(GenerationRequest([1], SamplingConfig(max_tokens=1000)))
        next(begun)
        going_on = [client.submit(GenerationRequest([SILENT])) for client in (engine, other)]
        engine.close()
        for generation in (*going_on, begun):
            with pytest.raises(EngineClosed):
                generation.result()
        with pytest.raises(EngineClosed):
            other.submit(GenerationRequest([1])).result()


def test_other_programs_of_the_user_may_use_it(healthy: EngineProcess) -> None:
    with EngineClient(Visitor(healthy.folder)) as other:
        assert other.submit(GenerationRequest([1])).result().finish_reason == "length"


def test_what_cannot_be_loaded_raises_its_own_error(home: Path) -> None:
    with pytest.raises(DoesNotFit, match="9 GB"):
        EngineProcess({"fail": True}, fake_engine.FACTORY, say=lambda _line: None)
    assert not list((home / "run").iterdir())


def test_a_file_that_cannot_be_read_is_told_as_that(home: Path) -> None:
    with pytest.raises(EngineError, match=r"can't be loaded.*Permission denied.*model\.gguf"):
        EngineProcess({"fail_os": "model.gguf"}, fake_engine.FACTORY, say=lambda _line: None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "MOST_DEATHS_AT_LOAD", 2)


@pytest.mark.usefixtures("impatient")
def test_deaths_at_load_are_given_up_with_the_reason(tmp_path: Path) -> None:
    deadly = tmp_path / "deadly"
    deadly.touch()
    with pytest.raises(EngineCrashed, match=r"2 times .*SIGSEGV.*GGML_ASSERT\(loading\)"):
        EngineProcess({"deadly_file": str(deadly)}, fake_engine.FACTORY, say=lambda _line: None)


@pytest.mark.usefixtures("impatient")
def test_it_is_given_up_when_it_dies_at_every_new_load(launch: Launch, tmp_path: Path) -> None:
    deadly = tmp_path / "deadly"
    engine = launch(deadly_file=str(deadly))
    waiting = engine.submit(GenerationRequest([SILENT]))
    deadly.touch()
    os.kill(engine.pid or 0, signal.SIGKILL)
    for raises in (waiting.result, lambda: engine.submit(GenerationRequest([1]))):
        with pytest.raises(EngineCrashed, match="2 times while loading"):
            raises()


def test_who_cannot_tell_where_it_is_gives_up(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = launch()
    waiting = engine.submit(GenerationRequest([SILENT]))

    def failing(_owner: Owner) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(rendezvous, "_RETRY_S", 0.05)
    monkeypatch.setattr(Owner, "_write", failing)
    os.kill(engine.pid or 0, signal.SIGKILL)
    with pytest.raises(EngineClosed):
        waiting.next(10)
    with pytest.raises(EngineError, match="make room"):
        engine._supervisor.wait_ready()
    wait_until(lambda: is_gone(engine.pid or 0))
    engine.close()
    assert not engine.folder.exists()


def test_a_death_costs_only_requests_that_had_begun(launch: Launch, home: Path) -> None:
    n_threads, me = threading.active_count(), psutil.Process()
    n_files, n_children = me.num_fds(), len(me.children())
    engine = launch(step_s=0.02)
    for name in ("SIGKILL", "SIGSEGV"):
        begun = engine.submit(GenerationRequest([10], n=2))  # takes 0.1 s
        next(begun)
        silent = [engine.submit(GenerationRequest([SILENT])) for _ in range(3)]
        cancelled = engine.submit(GenerationRequest([SILENT]))
        died = time.monotonic()
        os.kill(engine.pid or 0, getattr(signal, name))
        cancelled.cancel()
        with pytest.raises(EngineCrashed, match=name):
            begun.results()
        assert engine.submit(GenerationRequest([20])).result().tokens[0] == 21
        assert time.monotonic() - died < 3
        assert cancelled.result().finish_reason == "cancelled"
        assert engine.stats().n_running == 3  # begun anew
        for generation in silent:
            generation.cancel()
            assert generation.result().finish_reason == "cancelled"
    with pytest.raises(EngineCrashed, match=r"SIGABRT.*GGML_ASSERT\(prompt\[0\] != 9002\) failed"):
        engine.submit(GenerationRequest([DEADLY])).result()  # it is begun anew once
    assert engine.submit(GenerationRequest([1])).result().finish_reason == "length"
    assert engine.stats().n_restarts == 4
    engine.close()
    wait_until(lambda: threading.active_count() <= n_threads)
    wait_until(lambda: me.num_fds() <= n_files)
    assert len(me.children()) == n_children
    assert not list((home / "run").iterdir())


def test_while_it_is_started_anew_requests_wait_and_stats_answer(launch: Launch) -> None:
    engine = launch(load_s=0.5)
    engine.start()
    os.kill(engine.pid or 0, signal.SIGKILL)
    wait_until(lambda: engine.stats().n_restarts == 1)
    started = time.monotonic()
    waiting = engine.submit(GenerationRequest([1]))
    unwanted = engine.submit(GenerationRequest([2]))
    unwanted.cancel()
    assert unwanted.result().finish_reason == "cancelled"
    assert engine.stats().n_waiting == 1
    assert time.monotonic() - started < 0.4
    assert waiting.result().tokens[0] == 2


def test_what_is_cancelled_while_it_is_started_anew_ends_at_once(launch: Launch) -> None:
    engine = launch(load_s=1.0)
    lost = engine.submit(GenerationRequest([SILENT]))
    os.kill(engine.pid or 0, signal.SIGKILL)
    wait_until(lambda: engine.stats().n_restarts == 1)
    time.sleep(0.2)  # the client has noticed
    lost.cancel()
    assert lost.next(0.5).finish_reason == "cancelled"
    embedding = engine.embed(EmbeddingRequest([[SILENT]]))
    engine.cancel(embedding.id)
    with pytest.raises(EngineError, match="was cancelled"):
        embedding.result(0.5)
    assert engine.submit(GenerationRequest([1])).result().finish_reason == "length"
    assert engine.stats().n_running == 0


def test_what_is_left_of_a_time_limit_crosses_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    request = GenerationRequest([1], time_limit_s=10)
    pending = Pending(1, request, Generation())
    limits = []
    for later_s in (0, 4, 20):
        monkeypatch.setattr(time, "monotonic", lambda now=pending._submitted + later_s: now)
        message = Messages(io.BytesIO(pending.frame()), ToEngine).read()
        limits.append(message.fields["time_limit_s"])
    assert limits == [10, 6, 0.001]


def test_time_limits_hold_while_it_is_started_anew(launch: Launch) -> None:
    engine = launch(load_s=1.5)
    lost = engine.submit(GenerationRequest([SILENT], n=2, time_limit_s=0.5))
    os.kill(engine.pid or 0, signal.SIGKILL)
    wait_until(lambda: engine.stats().n_restarts == 1)
    held = engine.submit(GenerationRequest([1], time_limit_s=0.3))
    enough = engine.submit(GenerationRequest([1], time_limit_s=60))
    started = time.monotonic()
    assert held.result().finish_reason == "time_limit"
    assert [result.finish_reason for result in lost.results()] == ["time_limit"] * 2
    assert time.monotonic() - started < 1.2
    assert enough.result().finish_reason == "length"


# -- owners --------------------------------------------------------------------------------------

_OWNER = """
import os, sys, time
from support import fake_engine
from llamalite.engine.process.supervisor import EngineProcess
engine = EngineProcess({}, fake_engine.FACTORY, say=lambda line: None)
if sys.argv[1] == "fork" and not os.fork():
    time.sleep(60)
print(engine.pid, engine.folder, flush=True)
if sys.argv[1] == "exit":
    sys.exit()
time.sleep(60)
"""


def owner(how: str) -> tuple[subprocess.Popen[str], int, Path]:
    command = [sys.executable, "-c", _OWNER, how]
    path = os.pathsep.join([SUPPORT, os.getcwd()])
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert process.stdout is not None
    pid, folder = process.stdout.readline().split(maxsplit=1)
    return process, int(pid), Path(folder.strip())


@pytest.mark.parametrize("how", ["fork", "exit"])
def test_the_process_ends_with_its_owner(how: str) -> None:
    process, pid, folder = owner(how)
    forks = psutil.Process(process.pid).children()
    if how != "exit":
        visitor = EngineClient(Visitor(folder))
        visitor.start()
        process.kill()
        with pytest.raises(LlamaliteError):
            visitor.submit(GenerationRequest([SILENT])).result()
        visitor.close()
    process.wait(10)
    wait_until(lambda: is_gone(pid), 3)
    if how == "exit":
        assert not folder.exists()
    for fork in forks:
        if fork.pid != pid:
            fork.kill()
    assert process.stdout is not None
    process.stdout.close()


def test_the_process_ends_with_its_pipe(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command_for(MODULE),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment("engine"),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    start = Start(fake_engine.FACTORY, {}, str(tmp_path), "s", b"s" * 32, logging.ERROR)
    process.stdin.write(frame(start))
    process.stdin.flush()
    messages = Messages(process.stdout, FromChild)  # type: ignore[arg-type]
    while not isinstance(messages.read(), Ready):
        pass
    process.stdin.close()
    assert process.wait(3) == 0
    process.stdout.close()


def test_a_fork_has_a_connection_of_its_own(healthy: EngineProcess) -> None:
    engine = healthy
    before = engine.submit(GenerationRequest([SILENT]))
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            tokens = engine.submit(GenerationRequest([30])).result().tokens
            engine.close()  # the owner's engine goes on
            os._exit(0 if tokens[0] == 31 else 1)
        os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert engine.submit(GenerationRequest([1])).result().finish_reason == "length"
    before.cancel()
    assert before.result().finish_reason == "cancelled"


def test_an_engines_process_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_CHILD", "engine")
    with pytest.raises(EngineError, match="starts no other"):
        EngineProcess({}, fake_engine.FACTORY)


def test_what_cannot_be_sent_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    me = psutil.Process()
    n_files, children = me.num_fds(), me.children()
    with pytest.raises(InvalidParameter, match="can't be sent"):
        EngineProcess({"odd": object()}, fake_engine.FACTORY)
    assert me.children() == children

    def failing(_launch: Launch_, _message: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Launch_, "_write", failing)
    with pytest.raises(EngineError, match="MemoryError"):
        EngineProcess({}, fake_engine.FACTORY)
    assert me.children() == children
    wait_until(lambda: me.num_fds() <= n_files)


def test_no_interpreter_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_PYTHON", "/nowhere/python")
    with pytest.raises(EngineError, match="can't be started"):
        EngineProcess({}, fake_engine.FACTORY)
