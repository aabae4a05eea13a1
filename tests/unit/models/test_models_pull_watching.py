"""What watches a pull may end it at any time; and what is remembered of one is no part of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.gguf_models import write_llama
from support.loopback_hub import LoopbackHub

from llamalite import ModelManager, config
from llamalite.errors import DownloadError, InvalidParameter
from llamalite.models.hub.cache import cache_folder, file_lock
from llamalite.models.locate import locate
from llamalite.models.pull import CallbackReport, pull, pull_all

REPO, FILE = "o/r", "m-Q8_0.gguf"
NAME = f"{REPO}:Q8_0"


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return write_llama(tmp_path / "m.gguf").read_bytes().ljust(1 << 20, b"\0")


@pytest.fixture
def hub(hub: LoopbackHub, content: bytes) -> LoopbackHub:
    hub.repos[REPO] = {FILE: content}
    return hub


@pytest.fixture
def manager(hub: LoopbackHub) -> ModelManager:
    return ModelManager(say=lambda _: None)


@pytest.mark.parametrize("kind", [OSError, TimeoutError, DownloadError])
def test_what_a_callback_raises_is_taken_for_nothing_else(
    hub: LoopbackHub, kind: type[Exception]
) -> None:
    raised = kind("the program's own")

    def refuse(done: int, total: int | None) -> None:
        raise raised

    for model in (NAME, f"{hub.storage_url}/{REPO}/{FILE}"):
        with pytest.raises(kind) as caught:
            list(pull_all([model, model], None, CallbackReport(refuse)))
        assert caught.value is raised


def test_what_a_report_or_a_say_raises_ends_the_pull_too(hub: LoopbackHub) -> None:
    class Closed:
        def expect(self, files: Sequence[tuple[str, int | None]]) -> None: ...

        def at(self, file: str, received: int) -> None: ...

        def say(self, line: str) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    def say(line: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    for arguments in ((None, Closed()), (say, None)):
        with pytest.raises(BrokenPipeError):
            pull(NAME, *arguments)


@pytest.mark.parametrize("in_loop", [False, True])
def test_an_async_callback_is_refused(manager: ModelManager, in_loop: bool) -> None:
    async def callback(done: int, total: int | None) -> None: ...

    def pull_it() -> None:
        if in_loop:
            asyncio.run(manager.pull_model(NAME, progress_callback=callback))
        else:
            manager.pull_model_sync(NAME, progress_callback=callback)

    with pytest.raises(InvalidParameter, match="is an async function, which nobody would await"):
        pull_it()


@pytest.mark.parametrize("why", ["silent", "busy", "asked to wait"])
def test_cancelling_needs_no_bytes(manager: ModelManager, hub: LoopbackHub, why: str) -> None:
    if why == "silent":
        hub.stops = [1000]
    elif why == "asked to wait":
        hub.storage_answers, hub.retry_after = [503], "20"
    lock = cache_folder() / ".locks" / "models--o--r" / f"{hub.sha256(hub.repos[REPO][FILE])}.lock"
    lock.parent.mkdir(parents=True)

    async def main() -> float:
        pulling = asyncio.create_task(manager.pull_model(NAME))
        while not pulling.done():
            await asyncio.sleep(0.02)
            if why == "busy" or hub.requests("storage", "GET"):
                break
        await asyncio.sleep(0.2)
        pulling.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        return started

    if why == "busy":
        with file_lock(lock, lambda: None):
            started = asyncio.run(main())  # which waits for the thread
            assert time.monotonic() - started < 1.5
    else:
        started = asyncio.run(main())
        assert time.monotonic() - started < 1.5


def test_a_home_that_cannot_be_written_is_no_reason_to_lose_a_model(
    hub: LoopbackHub, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.home().mkdir(parents=True)
    (config.home() / "records").write_text("no folder")
    said: list[str] = []
    assert pull(NAME, said.append).path.read_bytes() == content
    (line,) = [line for line in said if "remembered" in line]
    assert line.startswith(f"where {FILE} came from isn't remembered: ")


def test_addresses_that_differ_in_their_query_are_two_models(
    hub: LoopbackHub, content: bytes, tmp_path: Path
) -> None:
    url = f"{hub.storage_url}/{REPO}/{FILE}"
    newer = content[:-1] + b"n"
    first = pull(f"{url}?v=1").path
    hub.repos[REPO][FILE] = newer
    second = pull(f"{url}?v=2").path
    assert (first.read_bytes(), second.read_bytes()) == (content, newer)
    for query, path in (("?v=1", first), ("?v=2", second), ("", None), ("?v=3", None)):
        assert locate(url + query).path == path
    assert pull(f"{url}?v=1").was_here
