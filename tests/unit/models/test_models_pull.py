"""What a pull finds out, fetches and says; its command line and its interruptions are cli's."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from models_tiny_wheel import CONTENT
from support.gguf_models import raw_field, raw_file, raw_string
from support.loopback_hub import LoopbackHub

from llamalite.errors import (
    AmbiguousFile,
    ChecksumMismatch,
    DownloadError,
    GGUFError,
    InvalidParameter,
    ModelNotFound,
    Offline,
)
from llamalite.models.names.catalog import CatalogEntry
from llamalite.models.pull import CallbackReport, Pulled, Wish, pull, pull_all
from llamalite.models.store.installed import installed_models
from llamalite.models.store.records import read_record


def model(label: str, n_bytes: int = 1000) -> bytes:
    """Return a small GGUF file that differs from others."""
    fields = [raw_field(key, 8, raw_string(v)) for key, v in (("general.architecture", "llama"),)]
    return raw_file(
        [*fields, raw_field("general.name", 8, raw_string(label))], values=bytes(n_bytes)
    )


class Heard:
    """A Report that keeps all it hears, and checks it."""

    def __init__(self) -> None:
        self.sizes: dict[str, int | None] = {}
        self.received: dict[str, list[int]] = {}
        self.said: list[str] = []

    def expect(self, files: Sequence[tuple[str, int | None]]) -> None:
        self.sizes.update(files)

    def at(self, file: str, received: int) -> None:
        assert file in self.sizes
        self.received.setdefault(file, []).append(received)

    def say(self, line: str) -> None:
        assert "\n" not in line
        self.said.append(line)


@pytest.fixture
def heard() -> Iterator[Heard]:
    report = Heard()
    yield report
    for file, seen in report.received.items():
        assert seen == sorted(seen), file


def test_a_quantization_comes_into_the_cache_and_is_remembered(
    hub: LoopbackHub, heard: Heard
) -> None:
    hub.repos["o/r"] = {"m-Q4_0.gguf": model("4"), "m-Q8_0.gguf": model("8")}
    done = pull("o/r:q8_0", None, heard)
    assert (done.name, done.source, done.was_here) == ("o/r:Q8_0", "hub", False)
    assert done.path.read_bytes() == model("8")
    assert done.n_bytes == len(model("8"))
    assert heard.said == [f"Fetching o/r/m-Q8_0.gguf (1.1 kB) from {hub.url}/o/r"]
    assert heard.sizes == {"o/r/m-Q8_0.gguf": done.n_bytes}
    assert heard.received["o/r/m-Q8_0.gguf"][-1] == done.n_bytes
    record = read_record(done.path)
    assert record is not None
    assert (record.source, record.origin) == ("hub", "o/r:q8_0")
    assert record.sha256 == hashlib.sha256(model("8")).hexdigest()
    assert [found.name for found in installed_models()] == ["o/r:Q8_0"]


def test_what_is_here_is_not_fetched_again_but_forced(hub: LoopbackHub) -> None:
    hub.repos["o/r"] = {"m-Q8_0.gguf": model("8")}
    first = pull("o/r:Q8_0")
    sent = hub.sent.total()
    again = pull("o/r:Q8_0")
    assert (again.path, again.was_here) == (first.path, True)
    assert hub.sent.total() == sent
    assert not pull(Wish("o/r:Q8_0", force=True)).was_here
    assert hub.sent.total() == 2 * sent


def test_without_a_quantization_the_choice_is_said(hub: LoopbackHub, heard: Heard) -> None:
    hub.repos["o/r"] = {f"m-{quant}.gguf": model(quant) for quant in ("Q4_K_S", "Q4_K_M", "Q8_0")}
    hub.repos["o/odd"] = {f"m-{quant}.gguf": model(quant) for quant in ("Q5_K_M", "Q8_0")}
    assert pull("o/r", None, heard).name == "o/r:Q4_K_M"
    assert pull("hf:o/odd", None, heard).name == "o/odd:Q5_K_M"
    choices = [line for line in heard.said if line.startswith("taking")]
    assert choices[0] == "taking Q4_K_M (1.1 kB), the default"
    assert (
        "taking Q5_K_M (1.1 kB), the nearest to Q4_K_M among those that fit in memory" in choices[1]
    )


def test_all_parts_and_the_projector_come_along(hub: LoopbackHub, heard: Heard) -> None:
    parts = {f"Q8_0/m-0000{i}-of-00003.gguf": model(f"part {i}") for i in (1, 2, 3)}
    hub.repos["o/split"] = {**parts, "mmproj-F16.gguf": model("eyes"), "m-Q4_0.gguf": model("4")}
    bare = pull(Wish("o/split:Q8_0", projector=False))
    assert [path.read_bytes() for path in bare.paths] == list(parts.values())
    assert bare.projector is None
    done = pull("o/split:Q8_0", None, heard)
    assert done.projector is not None
    assert done.projector.read_bytes() == model("eyes")
    assert len(heard.sizes) == 4
    assert hub.sent["o/split/mmproj-F16.gguf"] == len(model("eyes"))
    assert not hub.sent["o/split/m-Q4_0.gguf"]
    assert any("Fetching" in line and "(1.1 kB)" in line for line in heard.said)


def test_a_file_and_a_revision_can_be_asked_for(hub: LoopbackHub) -> None:
    hub.repos["o/r"] = {"a/m-Q4_0.gguf": model("a"), "b/m-Q4_0.gguf": model("b")}
    hub.revisions["o/r"] = {"v1": {"a/m-Q4_0.gguf": model("old a")}}
    assert pull(Wish("o/r", file="b/m-Q4_0.gguf")).path.read_bytes() == model("b")
    old = pull(Wish("o/r", revision="v1"))
    assert old.path.read_bytes() == model("old a")
    assert old.name.endswith("@v1")
    assert pull("o/r/a/m-Q4_0.gguf@v1").path == old.path
    with pytest.raises(AmbiguousFile, match=r"any of a/m-Q4_0.gguf, b/m-Q4_0.gguf"):
        pull("o/r:Q4_0")
    with pytest.raises(ModelNotFound, match=r"o/r has no GGUF file c.gguf; it has"):
        pull(Wish("o/r", file="c.gguf"))
    with pytest.raises(InvalidParameter, match="--revision v2 contradicts o/r@v1"):
        pull(Wish("o/r@v1", revision="v2"))
    with pytest.raises(InvalidParameter, match="refused"):
        pull(Wish("o/r", file="../m-Q4_0.gguf"))
    with pytest.raises(InvalidParameter, match="--file goes with a repository"):
        pull(Wish(str(old.path), file="m.gguf"))


def test_projectors_and_incomplete_models_are_not_taken_for_models(hub: LoopbackHub) -> None:
    hub.repos["o/r"] = {"mmproj-F16.gguf": model("eyes"), "m-Q8_0-00001-of-00002.gguf": model("1")}
    with pytest.raises(ModelNotFound, match="is a projector, which comes along with its model"):
        pull(Wish("o/r", file="mmproj-F16.gguf"))
    with pytest.raises(ModelNotFound, match=r"m-Q8_0-00002-of-00002.gguf is missing from o/r"):
        pull("o/r:Q8_0")
    with pytest.raises(ModelNotFound, match=r"m-Q8_0-00002-of-00002.gguf is missing from o/r"):
        pull(Wish("o/r", file="m-Q8_0-00001-of-00002.gguf"))
    assert not hub.sent


@pytest.mark.parametrize("path", ["../../../../x-Q8_0.gguf", "/x-Q8_0.gguf", "a\\..\\x-Q8_0.gguf"])
def test_a_repositorys_file_names_lead_nowhere_else(
    hub: LoopbackHub, path: str, empty_computer: Path
) -> None:
    hub.repos["o/evil"] = {path: model("evil")}
    for wish in (Wish("o/evil"), Wish("o/evil:Q8_0"), Wish("o/evil", file=path)):
        with pytest.raises(InvalidParameter, match="is refused"):
            pull(wish)
    assert not hub.sent
    assert not list(empty_computer.rglob("*x-Q8_0*"))


def test_a_hub_that_fails_leaves_what_is_here_in_use(
    hub: LoopbackHub, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["o/r"] = {"m-Q8_0.gguf": model("8")}
    first = pull("o/r:Q8_0")
    with monkeypatch.context() as offline:
        offline.setenv("LLAMALITE_OFFLINE", "1")
        assert pull("o/r").path == first.path
        with pytest.raises(Offline, match=r"o/r:Q4_0 isn't on this computer.*forbids fetching it"):
            pull("o/r:Q4_0")
    hub.gated.add("o/r")
    hub.private.add("o/r")
    again = pull("o/r:Q8_0", None, heard)
    assert (again.path, again.was_here) == (first.path, True)
    assert heard.said[0].endswith("; what is here already stays in use")
    with pytest.raises(DownloadError):
        pull(Wish("o/r:Q8_0", force=True))


def test_an_unreachable_hub_leads_on() -> None:
    with pytest.raises(DownloadError) as error:
        pull("o/r:Q8_0")
    place = os.environ["HF_ENDPOINT"]
    assert str(error.value) == (
        f"o/r:Q8_0 isn't on this computer, and {place} can't be reached (refused): check the "
        f"network, set HF_ENDPOINT to a mirror, or give the path of a GGUF file"
    )


def test_room_for_several_files_is_looked_at_first(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos["o/r"] = {"m-Q8_0.gguf": model("8"), "mmproj-F16.gguf": model("eyes")}
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100))
    said = "needs 2.3 kB more in .*, where 100 bytes are free: free some, or set {} to a folder"
    with pytest.raises(DownloadError, match=said.format("HF_HUB_CACHE")):
        pull("o/r:Q8_0")
    monkeypatch.setenv("HF_HOME", str(Path(os.environ["HF_HUB_CACHE"]).parent))
    monkeypatch.delenv("HF_HUB_CACHE")
    with pytest.raises(DownloadError, match=said.format("HF_HOME")):
        pull("o/r:Q8_0")


def test_a_new_version_on_the_hub_is_fetched(hub: LoopbackHub) -> None:
    hub.repos["o/r"] = {"m-Q8_0.gguf": model("old")}
    pull("o/r:Q8_0")
    hub.repos["o/r"] = {"m-Q8_0.gguf": model("new")}
    done = pull("o/r:Q8_0")
    assert (done.path.read_bytes(), done.was_here) == (model("new"), False)


def test_an_address_and_a_file_come_into_the_store(
    hub: LoopbackHub, heard: Heard, empty_computer: Path
) -> None:
    hub.repos["o/r"] = {"web-Q8_0.gguf": model("web", 700_000)}
    url = f"{hub.storage_url}/o/r/web-Q8_0.gguf"
    done = pull(f"{url}?token=hunter2", None, heard)
    assert (empty_computer / "home" / "models") in done.path.parents
    assert done.path.read_bytes() == model("web", 700_000)
    assert (done.name, done.source, done.origin) == ("web-Q8_0", "url", url)
    assert heard.sizes == {url: done.n_bytes}
    assert not any("hunter2" in line for line in heard.said)
    source = empty_computer / "disk.gguf"
    source.write_bytes(model("disk"))
    copied = pull(source.as_uri())
    assert copied.path == empty_computer / "home" / "models" / "disk.gguf"
    assert (copied.source, copied.was_here) == ("import", False)
    assert pull(source.as_uri()).was_here
    assert {found.name for found in installed_models()} == {"web-Q8_0", "disk"}


def test_an_address_needs_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    with pytest.raises(Offline, match=r"forbids fetching https://x\.example/m\.gguf: unset"):
        pull("https://x.example/m.gguf?key=secret")


def test_a_path_is_here_already(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(model("m"))
    assert pull(str(path)) == Pulled(str(path), (path,), "", "", path.stat().st_size, was_here=True)


def test_what_is_no_model_is_refused_and_leaves_nothing(
    hub: LoopbackHub, empty_computer: Path
) -> None:
    hub.repos["o/r"] = {"m-Q8_0.gguf": b"<html>no model</html>"}
    for _ in range(2):  # none of it is taken for one that is here
        with pytest.raises(DownloadError, match=r"^o/r/m-Q8_0\.gguf: is no GGUF file.* choose an"):
            pull("o/r:Q8_0")
    assert not list((empty_computer / "hub" / "models--o--r").rglob("*"))
    path = empty_computer / "page.gguf"
    path.write_bytes(b"<html>")
    with pytest.raises(GGUFError, match=r"page\.gguf: is no GGUF file"):
        pull(str(path))
    assert path.is_file()


def test_every_failure_of_several_is_in_the_error(hub: LoopbackHub) -> None:
    for name in "abc":
        hub.repos[f"o/{name}"] = {f"{name}-Q8_0.gguf": model(name)}
    hub.storage_answers = [404, 0, 403]
    with pytest.raises(DownloadError) as caught:
        list(pull_all([f"o/{name}:Q8_0" for name in "abc"]))
    assert str(caught.value).startswith("2 of 3 models can't be had: o/a/a-Q8_0.gguf can't be ")
    assert "; o/c/c-Q8_0.gguf can't be " in str(caught.value)


def test_several_are_looked_up_first_and_one_failure_stops_no_other(
    hub: LoopbackHub, heard: Heard
) -> None:
    hub.repos["o/a"] = {"a-Q8_0.gguf": model("a")}
    hub.repos["o/b"] = {"b-Q8_0.gguf": model("b")}
    with pytest.raises(DownloadError, match="no such repository"):
        list(pull_all(["o/a:Q8_0", "o/none:Q8_0"]))
    assert not hub.sent
    hub.storage_answers = [404]
    done: list[Pulled] = []
    with pytest.raises(DownloadError, match=r"o/a/a-Q8_0.gguf"):
        done.extend(pull_all(["o/a:Q8_0", "o/b:Q8_0"], None, heard))
    assert [model.name for model in done] == ["o/b:Q8_0"]
    assert len(heard.sizes) == 2
    assert any(line.endswith("going on with the next") for line in heard.said)
    assert [found.name for found in installed_models()] == ["o/b:Q8_0"]


def test_progress_never_runs_backwards_though_a_transfer_starts_again(
    hub: LoopbackHub, heard: Heard
) -> None:
    content = model("big", 3_000_000)
    hub.repos["o/r"] = {"m-Q8_0.gguf": content}
    hub.ranges = False  # a cut connection means all of it again
    hub.cuts = [1_000_000, 2_000_000]
    calls: list[tuple[int, int | None]] = []
    report = CallbackReport(lambda done, total: calls.append((done, total)))
    assert pull("o/r:Q8_0", None, report).path.read_bytes() == content
    assert calls == sorted(calls)
    assert calls[-1] == (len(content), len(content))
    hub.cuts = [1_000_000]
    url = f"{hub.storage_url}/o/r/m-Q8_0.gguf"
    pull(url, None, heard)  # the fixture checks the order


def test_the_callbacks_total_is_known_once_every_size_is() -> None:
    calls: list[tuple[int, int | None]] = []
    report = CallbackReport(lambda done, total: calls.append((done, total)))
    report.expect([("a", 10), ("b", None)])
    report.at("a", 4)
    report.expect([("b", 20)])
    report.at("b", 1)
    assert calls == [(4, None), (5, 30)]


def test_a_callback_that_raises_ends_the_pull(hub: LoopbackHub) -> None:
    def refuse(done: int, total: int | None) -> None:
        raise RuntimeError("enough")

    hub.repos["o/r"] = {"m-Q8_0.gguf": model("8")}
    with pytest.raises(RuntimeError, match="enough"):
        pull("o/r:Q8_0", None, CallbackReport(refuse))


def test_a_wrong_byte_leaves_nothing_usable(hub: LoopbackHub, empty_computer: Path) -> None:
    hub.repos["o/r"] = {"m-Q8_0.gguf": model("8")}
    hub.flipped = True
    with pytest.raises(ChecksumMismatch):
        pull("o/r:Q8_0")
    assert installed_models() == []
    assert not list(empty_computer.rglob("*.gguf"))


def test_a_pinned_model_that_is_here_needs_no_asking(hub: LoopbackHub, entry: CatalogEntry) -> None:
    first = pull("tiny:1k")
    assert first.path.read_bytes() == CONTENT
    hub.seen.clear()
    again = pull("TINY:1k")
    assert (again.path, again.was_here, again.name) == (first.path, True, "tiny:1k")
    assert hub.seen == []
    assert pull(Wish("tiny:1k", revision="main")).path == first.path  # that is asked for
    assert hub.seen


def test_aliases_lead_to_what_they_stand_for(hub: LoopbackHub) -> None:
    from llamalite.config import ModelConfig
    from llamalite.models.store.named import write_named

    hub.repos["o/r"] = {"m-Q8_0.gguf": model("8")}
    write_named("mine", ModelConfig(model="o/r:Q8_0"), replace=False)
    assert pull("mine").name == "o/r:Q8_0"


def test_the_beginning_of_a_name_is_not_taken_for_it(hub: LoopbackHub) -> None:
    hub.repos["o/llama3.2-1b"] = {"llama3.2-1b-Q8_0.gguf": model("8")}
    name = pull("o/llama3.2-1b:Q8_0").name
    with pytest.raises(ModelNotFound, match=f"^no model is called 'llama3': did you mean {name}, "):
        pull("llama3")
    assert pull(name).was_here


def test_pulling_what_only_an_alias_kept_gives_it_its_own_name_back(hub: LoopbackHub) -> None:
    from llamalite.models.store.records import update_record

    hub.repos["o/r"] = {"m-Q8_0.gguf": model("8")}
    path = pull("o/r:Q8_0").path
    update_record(path, removed=True)
    assert pull("o/r:Q8_0").was_here
    record = read_record(path)
    assert record is not None
    assert not record.removed


def test_the_same_bytes_at_another_revision_come_from_the_disk(hub: LoopbackHub) -> None:
    files = {"m-Q8_0.gguf": model("8"), "mmproj-F16.gguf": model("eyes")}
    hub.repos["o/r"], hub.revisions["o/r"] = files, {"v1": {**files, "more.txt": b"x"}}
    pull("o/r:Q8_0")
    sent = hub.sent.total()
    done = pull("o/r:Q8_0@v1")
    assert done.projector is not None
    assert done.projector.read_bytes() == model("eyes")
    assert hub.sent.total() == sent
