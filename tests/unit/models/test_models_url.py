from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from models_hub_files import REPO, ROOT, Noted, wait_for
from support.gguf_models import write_llama, write_vocabulary
from support.loopback_hub import LoopbackHub

from llamalite.errors import DownloadError, InvalidParameter, ModelNotFound, Offline
from llamalite.libs.transfer import download as transfer
from llamalite.models.url import PARTIAL_FOLDER, download_url, url_path

NAME = "m-Q8_0.gguf"


@pytest.fixture
def model(hub: LoopbackHub, tmp_path: Path) -> bytes:
    """A whole model of some 100 kB that the storage host serves as any web server would."""
    path = write_vocabulary(tmp_path / NAME, 5_000)
    hub.repos[REPO][NAME] = path.read_bytes()
    return path.read_bytes()


@pytest.fixture
def url(hub: LoopbackHub, model: bytes) -> str:
    return f"{hub.storage_url}/{REPO}/{NAME}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "rest", lambda *_: None)


def failure(url: str, folder: Path, kind: type[Exception] = DownloadError) -> str:
    with pytest.raises(kind) as caught:
        download_url(url, folder, Noted())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def models_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.gguf") if path.is_file()]


def kept(folder: Path) -> Path:
    (found,) = (folder / PARTIAL_FOLDER).glob("*.part")
    return found


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://Example.org/a/m.gguf", "example.org/a/m.gguf"),
        ("http://u:pw@example.org:8080/m.GGUF#y", "example.org_8080/m.GGUF"),
        ("http://u:pw@example.org/a/m.GGUF?v=1#y", "example.org/a/a798de8e/m.GGUF"),
        ("http://example.org/m.gguf?v=2", "example.org/269fc203/m.gguf"),
        ("https://example.org/a%20b/m%2B.gguf", "example.org/a b/m+.gguf"),
        ("https://example.org/é/%C3%BC.gguf", "example.org/é/ü.gguf"),
        ("https://example.org/%FC.gguf", "example.org/%FC.gguf"),
        ("https://[::1]/m.gguf", "__1/m.gguf"),
    ],
)
def test_an_address_has_one_place(url: str, path: str) -> None:
    assert url_path(url) == path


@pytest.mark.parametrize(
    "url",
    [
        "https://h/../m.gguf",
        "https://h/a/%2e%2e/%2e%2e/m.gguf",
        "https://h/a%5C..%5Cm.gguf",
        "https://h/%00.gguf",
        "https://h/C:m.gguf",
        "https://h/.hid/m.gguf",
        "https://h//m.gguf/../../x.gguf",
    ],
)
def test_addresses_that_lead_elsewhere_are_refused(url: str, folder: Path) -> None:
    failure(url, folder, InvalidParameter)
    assert not folder.exists()


@pytest.mark.parametrize(
    "url", ["ftp://h/m.gguf", "https://h/m.zip", "https:///m.gguf", "m.gguf", "http://[::1/m.gguf"]
)
def test_what_is_no_address_of_a_model_is_refused(url: str, folder: Path) -> None:
    assert "is no address of a GGUF file" in failure(url, folder, ModelNotFound)


def test_a_model_comes_whole_and_is_not_fetched_twice(
    url: str, hub: LoopbackHub, model: bytes, folder: Path
) -> None:
    noted = Noted()
    path = download_url(url, folder, noted)
    assert path == folder / url_path(url)
    assert path.read_bytes() == model
    assert noted.received[-1] == len(model) == noted.sizes[-1]
    assert [path.suffix for path in (folder / PARTIAL_FOLDER).iterdir()] == [".lock"]
    n_sent = hub.n_sent
    assert download_url(url, folder, noted) == path
    assert hub.n_sent == n_sent
    path.write_bytes(b"GGUF")
    assert download_url(url, folder, noted, force=True).read_bytes() == model


def test_what_broke_off_goes_on_in_the_next_process(
    url: str, hub: LoopbackHub, model: bytes, folder: Path
) -> None:
    hub.slow = len(model)
    program = (
        "import sys; from pathlib import Path\n"
        "from llamalite.libs.transfer.progress import show_progress\n"
        "from llamalite.models.url import download_url\n"
        "with show_progress('x', None, print) as progress:\n"
        "    download_url(sys.argv[1], Path(sys.argv[2]), progress)\n"
    )
    command = [sys.executable, "-c", program, url, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT)
    wait_for(lambda: list((folder / PARTIAL_FOLDER).glob("*.part")) and n_kept(folder) > 10_000)
    process.kill()
    process.wait()
    length = n_kept(folder)
    assert models_in(folder) == []
    hub.slow = None
    time.sleep(0.1)
    assert download_url(url, folder, Noted()).read_bytes() == model
    assert hub.ranges_asked() == [None, f"bytes={length}-"]


def test_what_was_killed_when_it_was_whole_is_not_fetched_again(
    url: str, hub: LoopbackHub, model: bytes, folder: Path, hasty: None
) -> None:
    hub.cuts = [1000, 0]
    failure(url, folder)
    kept(folder).write_bytes(model)
    before = hub.sent[f"{REPO}/{NAME}"]
    assert download_url(url, folder, Noted()).read_bytes() == model
    assert hub.sent[f"{REPO}/{NAME}"] == before


def n_kept(folder: Path) -> int:
    return kept(folder).stat().st_size


@pytest.mark.parametrize(
    ("etags", "date", "ranges", "restarts"),
    [
        (True, "", True, False),
        (False, "Wed, 21 Oct 2015 07:28:00 GMT", True, False),
        (False, "", True, True),
        (True, "", False, True),
    ],
)
def test_only_the_same_version_is_continued(
    url: str,
    hub: LoopbackHub,
    model: bytes,
    folder: Path,
    hasty: None,
    etags: bool,
    date: str,
    ranges: bool,
    restarts: bool,
) -> None:
    hub.etags, hub.last_modified, hub.ranges = etags, date, ranges
    hub.cuts = [1000, 0, 0]
    assert "what arrived is kept" in failure(url, folder) or restarts
    assert models_in(folder) == []
    hub.cuts.clear()
    before = hub.sent[f"{REPO}/{NAME}"]
    assert download_url(url, folder, Noted()).read_bytes() == model
    assert hub.sent[f"{REPO}/{NAME}"] - before == len(model) - (0 if restarts else 1000)


def test_a_new_version_begins_anew(
    url: str, hub: LoopbackHub, model: bytes, folder: Path, tmp_path: Path, hasty: None
) -> None:
    hub.cuts = [1000, 0]
    failure(url, folder)
    newer = write_llama(tmp_path / "newer").read_bytes()
    hub.repos[REPO][NAME] = newer
    assert download_url(url, folder, Noted()).read_bytes() == newer


@pytest.mark.parametrize("lengthless", [False, True])
def test_a_short_body_is_an_error(
    url: str, hub: LoopbackHub, folder: Path, hasty: None, lengthless: bool
) -> None:
    hub.lengthless, hub.cuts = lengthless, [2000, 0, 0]
    expected = "no whole GGUF file" if lengthless else "broke off after 2,000 bytes"
    assert expected in failure(url, folder)
    assert models_in(folder) == []


def test_a_page_that_is_no_model_is_refused(hub: LoopbackHub, folder: Path) -> None:
    hub.repos[REPO] = {NAME: b"<!doctype html> please log in"}
    message = failure(f"{hub.storage_url}/{REPO}/{NAME}", folder)
    assert (
        "gave what begins with '<!doctype html> plea', not a file that begins with 'GG" in message
    )
    assert models_in(folder) == []
    assert [path.suffix for path in (folder / PARTIAL_FOLDER).iterdir()] == [".lock"]


def test_refusals_are_one_line_without_secrets(
    url: str, hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = url.replace("//", "//…@")
    secret = f"{url.replace('//', '//someone:hunter2@')}?signature=hunter2"
    hub.storage_answers = [403]
    expected = f"{shown} can't be fetched: the server answered 403 Forbidden: it wants a login"
    assert failure(secret, folder) == expected
    assert failure(url + "x.gguf", folder).endswith("the server answered 404 Not Found")
    gone = "http://someone:hunter2@127.0.0.1:9/m.gguf"
    message = failure(gone, folder)
    assert message == (
        "http://…@127.0.0.1:9/m.gguf can't be fetched: its host can't be reached (refused)"
    )
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    assert "hunter2" not in failure(secret, folder, Offline)


def test_a_login_is_used(url: str, hub: LoopbackHub, model: bytes, folder: Path) -> None:
    download_url(url.replace("//", "//someone:hunter2@"), folder, Noted())
    (headers,) = hub.requests("storage", "GET")
    assert headers["authorization"] == "Basic c29tZW9uZTpodW50ZXIy"
    assert headers["host"] == url.split("/")[2]


def test_there_must_be_room(
    url: str, hub: LoopbackHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 10

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    assert "where 10 bytes are free: free some, or set LLAMALITE_MODELS_DIR" in failure(url, folder)


def test_a_folder_that_cannot_be_made_is_one_line(url: str, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    assert "can't be written" in failure(url, tmp_path / "models")


def test_a_long_address_and_an_odd_one_are_no_obstacle(
    hub: LoopbackHub, folder: Path, model: bytes
) -> None:
    for name in (f"{'a' * 200}/{'模' * 80}.gguf", "a b/é.gguf"):
        hub.repos[REPO][name] = model
        url = f"{hub.storage_url}/{REPO}/{name}"
        assert download_url(url, folder, Noted()) == folder / url_path(url)


def test_a_file_that_became_another_is_not_taken_for_the_whole(
    url: str, hub: LoopbackHub, model: bytes, folder: Path, tmp_path: Path, hasty: None
) -> None:
    hub.etags, hub.last_modified = False, "Wed, 21 Oct 2015 07:28:00 GMT"
    hub.cuts = [len(model) - 500, 0]
    failure(url, folder)
    hub.repos[REPO][NAME] = model[:-500]  # of the same second, and as long as what is here
    assert "is no whole GGUF file" in failure(url, folder)
    assert None in hub.ranges_asked()[2:]


def test_a_part_of_a_split_model_comes_alone(hub: LoopbackHub, folder: Path, model: bytes) -> None:
    name = "m-00001-of-00002.gguf"
    hub.repos[REPO][name] = model
    path = download_url(f"{hub.storage_url}/{REPO}/{name}", folder, Noted())
    assert path.name == name
