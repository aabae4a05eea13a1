"""ModelManager against a Hub on loopback: all it does, in a program's and in asyncio's way."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.gguf_models import write_llama
from support.loopback_hub import LoopbackHub

from llamalite import LLMConfig, ModelManager, config, get_model_manager
from llamalite.errors import AmbiguousFile, DownloadError, GGUFError, ModelError, ModelNotFound
from llamalite.models.store.in_use import hold

REPO = "owner/Small-1B-GGUF"
FILES = ["Small-1B.Q4_K_M.gguf", "Small-1B.Q8_0.gguf"]
N_BYTES = 3 << 20


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole GGUF file, made large enough to come in several pieces."""
    path = write_llama(tmp_path_factory.mktemp("model") / "m.gguf")
    return path.read_bytes().ljust(N_BYTES, b"\0")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, content: bytes, tmp_path: Path) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with LoopbackHub(repos={REPO: dict.fromkeys(FILES, content)}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def manager(hub: LoopbackHub) -> ModelManager:
    return ModelManager(say=lambda _line: None)


def test_a_model_comes_is_found_used_and_goes(manager: ModelManager, hub: LoopbackHub) -> None:
    assert manager.list_models() == []
    model = manager.pull_model_sync(REPO)
    assert model.path.name == FILES[0]
    assert manager.list_models() == [model]
    for name in (model.name, f"{REPO}:q4_k_m", "SMALL-1b", model.path):
        assert manager.get_model(name) == model
        assert manager.get_model_path(name) == model.path
    summary = manager.inspect_model("small")
    assert summary is not None
    assert (summary.architecture, summary.name, summary.n_bytes) == ("llama", "Tiny", N_BYTES)

    assert model.last_used is None
    manager.update_last_used("small")
    used = manager.get_model("small")
    assert used is not None
    assert used.last_used is not None
    assert used.last_used >= model.modified

    assert manager.remove_model("small") is True
    assert not model.path.exists()
    assert manager.list_models() == []
    assert manager.remove_model("small") is False


def test_what_is_no_model_of_the_store_is_told_from_what_is_none(
    manager: ModelManager, hub: LoopbackHub, tmp_path: Path
) -> None:
    path = write_llama(tmp_path / "own.gguf")
    with pytest.raises(ModelNotFound, match=r"own\.gguf is a file of your own: import it"):
        manager.pull_model_sync(str(path))
    hub.repos[REPO] = dict.fromkeys(FILES, b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DownloadError, match=r"is no GGUF file .*; nothing was kept, choose"):
        manager.pull_model_sync(REPO)
    assert manager.list_models() == []


def test_what_is_not_here_is_none_and_nothing_is_fetched(
    manager: ModelManager, hub: LoopbackHub
) -> None:
    for name in (
        "nonsense",
        f"{REPO}:Q8_0",
        f"hf:{REPO}",
        "smollm2:135m",
        Path("no/such.gguf"),
        "",
    ):
        assert manager.get_model(name) is None
        assert manager.get_model_path(name) is None
        assert manager.inspect_model(name) is None
        manager.update_last_used(name)
    assert manager.remove_model("nonsense") is False
    assert hub.seen == []


def test_an_ambiguous_name_lists_the_choices(manager: ModelManager) -> None:
    names = [manager.pull_model_sync(REPO, file).name for file in FILES]
    for ask in (manager.get_model, manager.inspect_model, manager.remove_model):
        with pytest.raises(AmbiguousFile) as error:
            ask("small")
        assert all(name in str(error.value) for name in names)
    assert len(manager.list_models()) == 2


def test_a_loaded_model_is_not_removed(manager: ModelManager) -> None:
    model = manager.pull_model_sync(REPO)
    with hold(model.paths), pytest.raises(ModelError, match="is loaded by"):
        manager.remove_model(model.name)
    assert model.path.exists()


def test_a_damaged_file_is_an_error_and_not_nothing(manager: ModelManager) -> None:
    file = config.models_dir() / "damaged.gguf"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(GGUFError):
        manager.inspect_model(file)


def test_its_configuration_holds_within_it_alone(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMALITE_MODELS_DIR", str(tmp_path / "elsewhere"))
    folder = tmp_path / "mine"
    settings = LLMConfig(models_dir=folder, aliases={"Little": "model", "tiny": "little"})
    manager = ModelManager(settings, say=lambda _line: None)
    source = write_llama(tmp_path / "model.gguf")
    model = manager.pull_model_sync(source.as_uri())
    assert model.path.parent == folder
    assert manager.get_model("TINY") == model
    assert manager.config is settings
    assert config.models_dir() == tmp_path / "elsewhere"
    assert ModelManager().get_model("tiny") is None
    assert ModelManager().list_models() == []


def test_the_default_manager_is_kept_until_a_configuration_is_given(tmp_path: Path) -> None:
    settings = LLMConfig(models_dir=tmp_path)
    given = get_model_manager(settings)
    assert given.config is settings
    assert get_model_manager() is given
    assert get_model_manager(settings) is not given


def test_progress_never_falls_and_ends_at_the_total(
    manager: ModelManager, hub: LoopbackHub
) -> None:
    hub.cuts = [1 << 20, 1 << 19]
    calls: list[tuple[int, int | None, int]] = []
    model = manager.pull_model_sync(
        REPO, FILES[1], lambda now, total: calls.append((now, total, threading.get_ident()))
    )
    assert model.path.name == FILES[1]
    received = [now for now, _, _ in calls]
    assert received == sorted(received)
    assert len(set(received)) > 3
    assert calls[-1][:2] == (N_BYTES, N_BYTES)
    assert {total for _, total, _ in calls} == {N_BYTES}


def test_other_tasks_run_while_a_model_comes(manager: ModelManager, hub: LoopbackHub) -> None:
    hub.slow = 6 << 20
    calls: list[tuple[int, int | None]] = []
    turns = 0

    def callback(now: int, total: int | None) -> None:
        assert threading.get_ident() == thread
        calls.append((now, total))

    async def main() -> str:
        nonlocal turns
        pulling = asyncio.create_task(manager.pull_model(REPO, progress_callback=callback))
        while not pulling.done():
            turns += 1
            await asyncio.sleep(0.01)
        return (await pulling).path.name

    thread = threading.get_ident()
    assert asyncio.run(main()) == FILES[0]
    assert turns > 5
    assert calls == sorted(calls)
    assert calls[-1] == (N_BYTES, N_BYTES)


@pytest.mark.parametrize("in_loop", [False, True])
@pytest.mark.parametrize("after", [N_BYTES // 4, N_BYTES - 1])
def test_what_the_callback_raises_ends_the_pull(
    manager: ModelManager, hub: LoopbackHub, in_loop: bool, after: int
) -> None:
    hub.slow = 6 << 20

    def callback(now: int, total: int | None) -> None:
        if now > after:
            raise ZeroDivisionError("enough")

    def pull() -> None:
        if in_loop:
            asyncio.run(manager.pull_model(REPO, FILES[0], callback))
        else:
            manager.pull_model_sync(REPO, FILES[0], callback)

    with pytest.raises(ZeroDivisionError, match="enough"):
        pull()
    if after < N_BYTES // 2:
        assert hub.sent[f"{REPO}/{FILES[0]}"] < N_BYTES
        assert manager.list_models() == []


def test_cancelling_ends_the_transfer_and_the_next_pull_goes_on(
    manager: ModelManager, hub: LoopbackHub
) -> None:
    hub.slow = 3 << 20
    file = f"{REPO}/{FILES[0]}"

    async def main() -> None:
        started = asyncio.Event()
        pulling = asyncio.create_task(
            manager.pull_model(REPO, progress_callback=lambda now, _: now and started.set())
        )
        await started.wait()
        await asyncio.sleep(0.3)
        pulling.cancel()
        await pulling

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    sent = hub.sent[file]
    assert 0 < sent < N_BYTES
    assert manager.list_models() == []
    hub.slow = None
    assert manager.pull_model_sync(REPO).path.stat().st_size == N_BYTES
    assert hub.sent[file] < N_BYTES + (1 << 20)


def test_failures_are_errors_of_one_line(manager: ModelManager, hub: LoopbackHub) -> None:
    hub.gated.add(REPO)
    for name, file, kind in (
        (REPO, None, DownloadError),
        ("owner/nothing-GGUF", None, (DownloadError, ModelNotFound)),
        (f"{REPO}:Q2_K", None, ModelNotFound),
        (REPO, "absent.gguf", ModelNotFound),
    ):
        with pytest.raises(kind) as error:
            asyncio.run(manager.pull_model(name, file))
        assert "\n" not in str(error.value)
    assert manager.list_models() == []


def test_a_path_object_is_only_ever_a_path(
    manager: ModelManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    manager.pull_model_sync(REPO)
    assert manager.get_model(Path("small")) is None
    assert manager.get_model_path(os.fspath(write_llama(tmp_path / "own.gguf"))) is not None
