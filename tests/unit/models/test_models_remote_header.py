from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gguf_models import write_llama, write_vocabulary
from support.loopback_hub import LoopbackHub

from llamalite.errors import BadField, DownloadError, GGUFError, NotGGUF, Offline, Truncated
from llamalite.gguf import GGMLType, GGUFReader, GGUFWriter
from llamalite.models.hub import asking
from llamalite.models.hub.remote_header import RemoteReader, read_hub_header, read_url_header

REPO, FILE = "owner/Tiny-GGUF", "tiny-Q8_0.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    server = LoopbackHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    yield server
    server.close()


@pytest.fixture
def model(hub: LoopbackHub, tmp_path: Path) -> Path:
    """A small model, on the Hub and here."""
    path = write_llama(tmp_path / FILE)
    hub.repos[REPO] = {FILE: path.read_bytes()}
    return path


@pytest.fixture
def large(hub: LoopbackHub, tmp_path: Path) -> Path:
    """A model whose header is many reads long, on the Hub and here."""
    path = write_vocabulary(tmp_path / FILE, 32_768, merges=True)
    hub.repos[REPO] = {FILE: path.read_bytes()}
    return path


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, noted and not made."""
    noted: list[float] = []
    monkeypatch.setattr(asking.time, "sleep", noted.append)
    return noted


def read() -> RemoteReader:
    return read_hub_header(REPO, FILE)


def failure(kind: type[Exception] = DownloadError) -> str:
    with pytest.raises(kind) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(remote: RemoteReader, path: Path) -> None:
    with GGUFReader(path) as local:
        assert dict(remote.metadata) == dict(local.metadata)
        assert remote.data_offset == local.data_offset
        assert [t[:5] for t in remote.tensors] == [t[:5] for t in local.tensors]
        assert remote.n_bytes == local.n_bytes
        assert remote.summary == local.summary


def write_part(path: Path, n_parts: int, no: int, tensors: list[str], **keys: Any) -> Path:
    part = path / f"m-Q8_0-{no + 1:05}-of-{n_parts:05}.gguf"
    with GGUFWriter(part) as writer:
        writer.add("general.architecture", "llama")
        for key, value in {"split.no": no, "split.count": n_parts, **keys}.items():
            writer.add(key, value)
        for name in tensors:
            writer.add_tensor(name, (32, 4), GGMLType.Q8_0, bytes(136))
    return part


def put_split(hub: LoopbackHub, path: Path, *, total: int = 3) -> list[str]:
    """A split model whose first part has no tensors, as some publishers make them."""
    names = [[], ["blk.0.a", "blk.0.b"], ["blk.1.a"]]
    keys = {"split.tensors.count": total}
    parts = [write_part(path, 3, no, tensors, **keys) for no, tensors in enumerate(names)]
    hub.repos[REPO] = {f"Q8_0/{part.name}": part.read_bytes() for part in parts}
    return [f"Q8_0/{part.name}" for part in parts]


def test_a_remote_header_says_what_the_file_says(hub: LoopbackHub, model: Path) -> None:
    remote = read()
    same(remote, model)
    assert remote.path == f"{REPO}/{FILE}"
    assert remote.summary.chat_templates["default"] == "{{ messages }}"
    assert remote.n_requests == 1
    with pytest.raises(GGUFError, match="not on this computer: download the model first"):
        remote.tensor_bytes(remote.tensors[0])


def test_a_header_of_many_reads_says_what_the_file_says(hub: LoopbackHub, large: Path) -> None:
    remote = read()
    assert remote.n_requests > 5
    assert list(remote.metadata["tokenizer.ggml.tokens"])[-1]
    same(remote, large)
    assert len(hub.requests("hub", "GET")) == 1  # the storage is asked directly afterwards


def test_the_header_of_a_100_mb_model_costs_less_than_2_percent(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    # As much header in as much file as SmolLM2-135M in Q4_1 has.
    content = write_vocabulary(tmp_path / FILE, 44_000, merges=True).read_bytes()
    share = 1_785_664 / 98_362_432
    n_bytes = int(GGUFReader(tmp_path / FILE).data_offset / share)
    assert 80e6 < n_bytes < 120e6
    hub.repos[REPO] = {FILE: content + bytes(n_bytes - len(content))}
    started = time.monotonic()
    remote = read()
    assert remote.n_bytes == n_bytes
    assert remote.n_requests < 25
    assert time.monotonic() - started < 5
    while hub.n_sent < remote.n_read and time.monotonic() - started < 10:
        time.sleep(0.01)  # the server counts what it has written, and we may have read it before
    assert remote.n_read <= hub.n_sent < 0.02 * n_bytes


def test_reads_grow_with_the_header(
    hub: LoopbackHub, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the smallest read were 1 KiB and the header 20 MB: equal ones would be a thousand.
    for name in ("_FIRST", "_SMALLEST"):
        monkeypatch.setattr(f"llamalite.models.hub.remote_header.{name}", 1 << 10)
    remote = read()
    assert remote.data_offset > 900 << 10
    assert remote.n_requests < 100


@pytest.mark.parametrize("n_vocab", [10, 5_000, 12_000])
def test_the_end_of_a_header_may_lie_anywhere(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_vocab: int
) -> None:
    path = write_vocabulary(tmp_path / FILE, n_vocab)
    hub.repos[REPO] = {FILE: path.read_bytes()}
    end = GGUFReader(path).data_offset
    for first in (end - 33, end - 1, end, end + 1):
        monkeypatch.setattr("llamalite.models.hub.remote_header._FIRST", first)
        same(read(), path)


def test_a_string_longer_than_a_read_is_no_damage(hub: LoopbackHub, tmp_path: Path) -> None:
    path = write_llama(tmp_path / FILE, **{"tokenizer.chat_template": "x" * 500_000})
    hub.repos[REPO] = {FILE: path.read_bytes()}
    same(read(), path)


def test_a_last_value_beyond_what_was_read_is_fetched(hub: LoopbackHub, tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / FILE) as writer:
        writer.add("general.architecture", "llama")
        writer.add("general.description", "y" * 300_000)
    hub.repos[REPO] = {FILE: (tmp_path / FILE).read_bytes()}
    assert read().metadata["general.description"] == "y" * 300_000


def test_the_token_goes_to_the_hub_alone(
    hub: LoopbackHub, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    read()
    assert [h["authorization"] for h in hub.requests("hub", "GET")] == ["Bearer hf_secret"]
    assert len(hub.requests("storage", "GET")) > 3
    assert not any("authorization" in headers for h, _, _, headers in hub.seen if h == "storage")


def test_any_web_server_that_does_ranges_will_do(
    hub: LoopbackHub, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    remote = read_url_header(f"{hub.storage_url}/{REPO}/{FILE}?signature=abc")
    same(remote, large)
    assert remote.path == f"{hub.storage_url}/{REPO}/{FILE}"
    assert not any("authorization" in headers for *_, headers in hub.seen)
    assert all("signature=abc" in path for _, m, path, _ in hub.seen if m == "GET")


def test_names_in_messages_hold_no_password(hub: LoopbackHub) -> None:
    host = hub.storage_url.removeprefix("http://")
    with pytest.raises(DownloadError) as caught:
        read_url_header(f"http://user:secret@{host}/o/r/no.gguf?sig=secret")
    assert str(caught.value).startswith(f"http://…@{host}/o/r/no.gguf can't be read")
    assert "secret" not in str(caught.value)
    with pytest.raises(DownloadError, match="no address of a file"):
        read_url_header("ftp://host/m.gguf")


def test_a_server_without_ranges_is_refused_and_nothing_is_downloaded(
    hub: LoopbackHub, model: Path
) -> None:
    hub.ranges = False
    hub.repos[REPO][FILE] += bytes(64 << 20)
    assert "only sends whole files (it doesn't do HTTP Range requests)" in failure()
    assert len(hub.requests("storage", "GET")) == 1
    time.sleep(0.2)
    assert hub.n_sent < 16 << 20  # what the system's own buffers took before the connection closed


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (401, "RepoNotFound", "no such repository, or a private one: set HF_TOKEN"),
        (401, "GatedRepo", "accept its terms at {url}/owner/Tiny-GGUF first, then set HF_TOKEN"),
        (403, "GatedRepo", "accept its terms at {url}/owner/Tiny-GGUF first, then set HF_TOKEN"),
        (404, "EntryNotFound", "the repository has no such file"),
        (404, "RevisionNotFound", "there is no such revision"),
        (401, "", "the server answered 401 Unauthorized: set HF_TOKEN"),
        (403, "", "the server answered 403 Forbidden: set HF_TOKEN"),
        (404, "", "the server answered 404 Not Found"),
    ],
)
def test_each_refusal_has_its_own_line(
    hub: LoopbackHub, model: Path, status: int, code: str, expected: str
) -> None:
    hub.answers, hub.code = [status], code
    expected = expected.format(url=hub.url)
    assert failure() == f"{REPO}/{FILE} can't be read: {expected}"
    assert len(hub.requests("hub", "GET")) == 1


def test_what_passes_is_tried_again(hub: LoopbackHub, model: Path, waits: list[float]) -> None:
    hub.answers = [500, 503]
    same(read(), model)
    assert waits == [0.5, 1.5]


def test_a_lasting_server_error_is_one_line(
    hub: LoopbackHub, model: Path, waits: list[float]
) -> None:
    hub.answers = [500] * 9
    assert "the server answered 500 Internal Server Error: try again later" in failure()
    assert len(hub.requests("hub", "GET")) == 3


def test_a_short_wait_that_the_server_asks_for_is_kept(
    hub: LoopbackHub, model: Path, waits: list[float]
) -> None:
    hub.answers, hub.retry_after = [429], "4"
    same(read(), model)
    assert waits == [4.0]


def test_a_long_wait_is_left_to_the_user(hub: LoopbackHub, model: Path, waits: list[float]) -> None:
    hub.answers, hub.retry_after = [429], "3600"
    assert "429 Too Many Requests: try again in 3600 s" in failure()
    assert waits == []


def test_a_cut_answer_is_asked_for_again(hub: LoopbackHub, large: Path, waits: list[float]) -> None:
    hub.cuts = [1000]
    remote = read()
    same(remote, large)
    assert len(waits) == 1


def test_answers_that_stay_short_are_an_error(
    hub: LoopbackHub, large: Path, waits: list[float]
) -> None:
    hub.cuts = [1000] * 9
    assert "try again later" in failure()
    assert len(hub.requests("storage", "GET")) == 3


def test_an_answer_without_a_length_is_measured_by_its_range(
    hub: LoopbackHub, large: Path, waits: list[float]
) -> None:
    hub.lengthless = True
    hub.cuts = [1000]
    same(read(), large)
    hub.cuts = [1000] * 9
    assert "it sent 1,000 of 98,304 bytes: try again later" in failure()


def test_a_server_that_sends_less_at_a_time_is_asked_more_often(
    hub: LoopbackHub, large: Path
) -> None:
    hub.most = 40_000
    same(read(), large)


@pytest.mark.parametrize("said", ["bytes 5-9/{}", "bytes 0-99999999/{}", "bytes 0-9/*", "x"])
def test_an_answer_to_another_question_is_refused(hub: LoopbackHub, model: Path, said: str) -> None:
    hub.content_range = said
    assert "the server answered bytes 0-98303 with " in failure()


def test_a_file_that_changes_meanwhile_is_refused(hub: LoopbackHub, large: Path) -> None:
    hub.replaced = {FILE: large.read_bytes() + b"more"}
    assert "the file changed while it was read: try again" in failure()


def test_a_signed_address_that_ran_out_is_asked_for_again(
    hub: LoopbackHub, large: Path, waits: list[float]
) -> None:
    hub.storage_answers = [0, 0, 403]
    same(read(), large)
    assert len(hub.requests("hub", "GET")) == 2


def test_a_storage_that_refuses_at_once_is_no_expired_address(
    hub: LoopbackHub, large: Path, waits: list[float]
) -> None:
    hub.storage_answers = [403]
    assert "403 Forbidden" in failure()
    assert waits == []


def test_a_page_that_is_no_model_is_refused_after_one_read(hub: LoopbackHub) -> None:
    hub.repos[REPO] = {FILE: b"<!doctype html>" + bytes(1 << 20)}
    assert f"{REPO}/{FILE}: is no GGUF file" in failure(NotGGUF)
    assert len(hub.requests("storage", "GET")) == 1
    hub.repos[REPO] = {FILE: b""}
    assert "it is empty" in failure(NotGGUF)


def test_damage_is_told_from_what_was_not_read_yet(hub: LoopbackHub, large: Path) -> None:
    whole = large.read_bytes()
    hub.repos[REPO] = {FILE: whole[:-100]}  # the last tensor's values
    assert "ends past the end of the file" in failure(Truncated)
    hub.repos[REPO] = {FILE: whole[:600_000]}  # in the vocabulary
    failure(Truncated)
    hub.seen.clear()
    hub.repos[REPO] = {FILE: whole[:16] + (1 << 60).to_bytes(8, "little") + whole[24:]}
    assert "a table of 1152921504606846976 keys" in failure(Truncated)
    assert len(hub.requests("storage", "GET")) == 1
    hub.repos[REPO] = {FILE: whole[:24] + bytes(8) + whole[32:]}
    assert "a key is empty" in failure(BadField)


def test_a_header_without_end_is_given_up(
    hub: LoopbackHub, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamalite.models.hub.remote_header._MAX_HEADER", 1 << 18)
    assert "has a header of more than 0 MiB: download it to look at it" in failure()


@pytest.mark.parametrize("given", [0, 1, 2])
def test_a_split_model_is_one_whatever_part_is_named(
    hub: LoopbackHub, tmp_path: Path, given: int
) -> None:
    files = put_split(hub, tmp_path)
    remote = read_hub_header(REPO, files[given])
    assert remote.paths == tuple(f"{REPO}/{file}" for file in files)
    assert [tensor.name for tensor in remote.tensors] == ["blk.0.a", "blk.0.b", "blk.1.a"]
    assert remote.tensors[2].path == f"{REPO}/{files[2]}"
    assert remote.n_bytes == sum(len(content) for content in hub.repos[REPO].values())
    assert remote.summary.n_params == 3 * 32 * 4
    assert remote.n_requests == 3
    by_url = read_url_header(f"{hub.storage_url}/{REPO}/{files[given]}")
    assert by_url.summary == remote.summary


def test_the_parts_of_a_split_model_must_fit_together(hub: LoopbackHub, tmp_path: Path) -> None:
    files = put_split(hub, tmp_path)
    parts = hub.repos[REPO]
    whole = dict(parts)
    del parts[files[1]]
    with pytest.raises(DownloadError, match=f"{files[1]} can't be read: the repository has no"):
        read_hub_header(REPO, files[0])
    hub.repos[REPO] = {**whole, files[1]: whole[files[2]]}
    with pytest.raises(GGUFError, match="is not part 2 of 3, as its name says"):
        read_hub_header(REPO, files[0])
    put_split(hub, tmp_path, total=4)
    with pytest.raises(GGUFError, match="its parts have 3 tensors together, not 4"):
        read_hub_header(REPO, files[0])
    hub.repos[REPO] = {"lone.gguf": whole[files[0]]}
    with pytest.raises(GGUFError, match="part 1 of 3, and its name says 1 of 1"):
        read_hub_header(REPO, "lone.gguf")


def test_a_revision_and_odd_names_are_quoted(hub: LoopbackHub, model: Path) -> None:
    hub.revisions[REPO] = {"refs/pr/1": {"a b/m+#?-Q8_0.gguf": hub.repos[REPO][FILE]}}
    same(read_hub_header(REPO, "a b/m+#?-Q8_0.gguf", "refs/pr/1"), model)
    assert any("/resolve/refs%2Fpr%2F1/a%20b/" in path for _, _, path, _ in hub.seen)


def test_offline_says_what_would_be_read(
    hub: LoopbackHub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    assert f"forbids reading {REPO}/{FILE}" in failure(Offline)
    assert hub.seen == []


def test_hosts_that_are_not_there_are_named(hub: LoopbackHub, model: Path) -> None:
    hub.storage = "http://127.0.0.1:9"
    assert failure() == f"{REPO}/{FILE} can't be read: it leads to 127.0.0.1:9: refused"


def test_a_hub_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert failure().startswith("http://127.0.0.1:9 can't be reached (")


def test_redirects_have_an_end_and_stay_on_the_web(hub: LoopbackHub, model: Path) -> None:
    hub.storage = f"{hub.url}/{REPO}/resolve/main/{FILE}?x="
    assert failure().endswith("it redirects without end, or to no web address")
    hub.storage = "file:///etc"
    assert failure().endswith("it redirects without end, or to no web address")
