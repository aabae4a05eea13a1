"""Engines without libllama, in this process and in others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import fake_engine
from support.fake_engine import FakeEngine

from llamalite.engine.process.rendezvous import READY, State
from llamalite.engine.process.server import EngineServer
from llamalite.engine.process.sockets import listen
from llamalite.engine.process.supervisor import EngineProcess


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(Path(fake_engine.__file__).parents[1]))
    return tmp_path / "home"


class FixedSource:
    """A Source of an engine that is served in this process."""

    def __init__(self, address: str, secret: bytes) -> None:
        self.said = State(READY, incarnation=1, address=address, secret=secret)

    def state(self) -> State:
        return self.said

    def wait_ready(self, goes_on: Callable[[], bool]) -> State:
        return self.said

    def death_of(self, incarnation: int) -> str | None:
        return None

    def close(self) -> None:
        pass

    def begin_anew(self) -> None:
        pass


class Served:
    """A fake engine behind a server, all in this process."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.secret = b"s" * 32
        self.engine = FakeEngine()
        listener, self.address = listen(folder, "s")
        self.server = EngineServer(self.engine, listener, self.secret, **options)
        self.server.start()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.engine.run, args=[self._stop])
        self._thread.start()

    @property
    def source(self) -> FixedSource:
        return FixedSource(self.address, self.secret)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def start(**options: Any) -> Served:
        made.append(Served(tmp_path, **options))
        return made[-1]

    yield start
    for served in made:
        served.close()


@pytest.fixture
def launch() -> Iterator[Callable[..., EngineProcess]]:
    """Start fake engines in processes of their own."""
    made: list[EngineProcess] = []

    def start(**arguments: Any) -> EngineProcess:
        made.append(EngineProcess(arguments, fake_engine.FACTORY, say=lambda _line: None))
        return made[-1]

    yield start
    for engine in made:
        engine.close()
