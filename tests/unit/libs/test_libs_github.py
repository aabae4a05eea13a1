from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.archives import HOSTILE, linux_archive, windows_archive
from support.libllama_files import write_build
from support.loopback_github import LoopbackGitHub, serving

from llamalite.errors import DownloadError, InvalidParameter, LibraryNotFound, Offline
from llamalite.libs.files.folder import scan_folder
from llamalite.libs.platforms import Platform
from llamalite.libs.sources import github_api
from llamalite.libs.sources.assets import likely_asset, parse_asset_name, read_assets
from llamalite.libs.sources.github import GitHubFetch, api_url, github_url, github_way, published
from llamalite.libs.sources.releases import PINNED, ReleaseTable

LINUX = Platform("linux", "x64")
WINDOWS = Platform("windows", "x64")
NEW = "b11434"
NAMES = [
    "macos-arm64.tar.gz",
    "macos-x64.tar.gz",
    "ubuntu-x64.tar.gz",
    "ubuntu-arm64.tar.gz",
    "ubuntu-s390x.tar.gz",
    "ubuntu-vulkan-x64.tar.gz",
    "ubuntu-vulkan-arm64.tar.gz",
    "ubuntu-cuda-12.8-x64.tar.gz",
    "ubuntu-cuda-13.4-x64.tar.gz",
    "ubuntu-cuda-13.4-arm64.tar.gz",
    "ubuntu-rocm-10.0-x64.tar.gz",
    "ubuntu-sycl-fp32-x64.tar.gz",
    "ubuntu-sycl-fp16-x64.tar.gz",
    "ubuntu-openvino-2026.4.1-x64.tar.gz",
    "win-cpu-x64.zip",
    "win-cpu-arm64.zip",
    "win-cuda-12.4-x64.zip",
    "win-cuda-13.4-x64.zip",
    "win-cuda-13.4-arm64.zip",
    "win-vulkan-x64.zip",
    "win-vulkan-arm64.zip",
    "win-rocm-10.0-x64.zip",
    "win-sycl-x64.zip",
    "win-openvino-2026.4.1-x64.zip",
    "win-opencl-adreno-arm64.zip",
]
"""The files of b11434, after `llama-b11434-bin-`."""
RUNTIMES = [
    f"cudart-llama-{NEW}-bin-ubuntu-cuda-12.8-x64.tar.gz",
    f"cudart-llama-{NEW}-bin-ubuntu-cuda-13.4-x64.tar.gz",
    f"cudart-llama-{NEW}-bin-ubuntu-cuda-13.4-arm64.tar.gz",
    "cudart-llama-bin-win-cuda-12.4-x64.zip",
    "cudart-llama-bin-win-cuda-13.4-x64.zip",
    "cudart-llama-bin-win-cuda-13.4-arm64.zip",
]


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackGitHub]:
    for name in ("LLAMALITE_GITHUB_API_URL", "GITHUB_TOKEN", "GH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving() as github:
        files = [f"llama-{NEW}-bin-{name}" for name in NAMES] + RUNTIMES
        files += ["llama-b11434-xcframework.zip", "llama-ui-b11434.tar.gz"]
        github.publish(NEW, {file: file.encode() for file in files})
        github.publish_version("v0.9.0", NEW)
        monkeypatch.setenv("LLAMALITE_GITHUB_URL", github.url)
        yield github


@pytest.fixture
def said() -> list[str]:
    return []


def resolved(
    said: list[str],
    release: str | None = NEW,
    backend: str = "cpu",
    platform: Platform = LINUX,
    table: ReleaseTable = PINNED,
    **options: bool,
) -> GitHubFetch:
    way = github_way(table, release, platform, backend, **options)
    assert way is not None
    assert way.problem() is None
    return way.resolve(said.append)


def refusal(said: list[str], kind: type[Exception] = DownloadError, **asked: Any) -> str:
    with pytest.raises(kind) as caught:
        resolved(said, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("file", "platform", "backend"),
    [
        ("llama-b5640-bin-ubuntu-x64.zip", "linux-x64", "cpu"),
        ("llama-b7300-bin-ubuntu-vulkan-x64.zip", "linux-x64", "vulkan"),
        ("llama-b11146-bin-ubuntu-arm64.tar.gz", "linux-arm64", "cpu"),
        ("llama-b5640-bin-macos-arm64.zip", "macos-arm64", "metal"),
        ("llama-b11434-bin-macos-x64.tar.gz", "macos-x64", "cpu"),
        ("llama-b10000-bin-win-hip-radeon-x64.zip", "windows-x64", "rocm"),
        ("llama-b11434-bin-win-rocm-10.0-x64.zip", "windows-x64", "rocm-10.0"),
        ("llama-b11434-bin-win-opencl-adreno-arm64.zip", "windows-arm64", "opencl-adreno"),
        ("llama-b11434-bin-ubuntu-sycl-fp16-x64.tar.gz", "linux-x64", "sycl-fp16"),
    ],
)
def test_names_of_every_era_are_read(file: str, platform: str, backend: str) -> None:
    name = parse_asset_name(file)
    assert name is not None
    assert (name.platform, name.backend, name.is_runtime) == (platform, backend, False)
    assert name.tag == file.split("-")[1]


@pytest.mark.parametrize(
    "file",
    [
        "llama-b11434-bin-ubuntu-s390x.tar.gz",
        "llama-b11434-bin-910b-openEuler-aarch64.tar.gz",
        "llama-b11434-xcframework.zip",
        "nightly-tag.txt",
        "llama-b1-bin-ubuntu-x64.tar.gz\n",
        "llama-b1-bin-ubuntu-../x-x64.zip",
        "../llama-b1-bin-ubuntu-x64.zip",
    ],
)
def test_other_names_are_none_of_ours(file: str) -> None:
    assert parse_asset_name(file) is None


def test_every_backend_of_a_release_is_found_under_its_names() -> None:
    files = [f"llama-{NEW}-bin-{name}" for name in NAMES]
    files.append(f"llama-{NEW}-bin-ubuntu-x64.zip")  # both forms: the tar.gz is taken
    assets = read_assets((file, 1, None) for file in files + RUNTIMES)
    assert len(assets) == len(NAMES) - 1  # s390x
    found = {(a.platform, name): a for a in assets for name in a.backends}
    assert sum(len(a.backends) for a in assets) == len(found)
    for platform, backend, file in (
        ("linux-x64", "cpu", "ubuntu-x64.tar.gz"),
        ("linux-x64", "cuda", "ubuntu-cuda-12.8-x64.tar.gz"),
        ("linux-arm64", "cuda", "ubuntu-cuda-13.4-arm64.tar.gz"),
        ("linux-x64", "sycl", "ubuntu-sycl-fp16-x64.tar.gz"),
        ("linux-x64", "openvino", "ubuntu-openvino-2026.4.1-x64.tar.gz"),
        ("linux-x64", "rocm", "ubuntu-rocm-10.0-x64.tar.gz"),
        ("macos-arm64", "metal", "macos-arm64.tar.gz"),
        ("macos-arm64", "cpu", "macos-arm64.tar.gz"),
        ("windows-x64", "cuda", "win-cuda-12.4-x64.zip"),
        ("windows-arm64", "opencl", "win-opencl-adreno-arm64.zip"),
    ):
        assert found[platform, backend].file == f"llama-{NEW}-bin-{file}"
    for asset in assets:
        is_cuda = "-cuda-" in asset.file
        assert (asset.runtime is not None) == is_cuda
        if asset.runtime is not None:
            rest = asset.file.partition("-bin-")[2]
            assert asset.runtime.file.endswith(rest)


def test_versions_are_compared_as_numbers() -> None:
    files = [f"llama-b1-bin-win-cuda-{version}-x64.zip" for version in ("12.10", "12.4", "9.2")]
    assets = read_assets((file, 1, None) for file in files)
    assert {a.backends for a in assets} == {("cuda-12.10",), ("cuda-12.4",), ("cuda-9.2", "cuda")}


def test_the_name_of_a_build_follows_its_era() -> None:
    for tag, platform, backend, file in (
        ("b5640", "linux-x64", "cpu", "llama-b5640-bin-ubuntu-x64.zip"),
        ("b7223", "macos-arm64", "metal", "llama-b7223-bin-macos-arm64.zip"),
        ("b7224", "linux-arm64", "cpu", "llama-b7224-bin-ubuntu-arm64.tar.gz"),
        ("b11146", "windows-x64", "cpu", "llama-b11146-bin-win-cpu-x64.zip"),
        ("b9000", "windows-x64", "rocm", "llama-b9000-bin-win-hip-radeon-x64.zip"),
    ):
        assert likely_asset(tag, platform, backend).file == file
    for asset in PINNED.assets:
        for backend in asset.backends:
            likely = likely_asset(PINNED.tag, asset.platform, backend)
            assert likely.file == asset.file
            assert (likely.runtime and likely.runtime.file) == (
                asset.runtime and asset.runtime.file
            )


# ---------------------------------------------------------------- the pinned release


def test_the_pinned_release_asks_nobody(github: LoopbackGitHub, said: list[str]) -> None:
    for release in (None, PINNED.tag, "v0.5.0"):
        way = github_way(PINNED, release, LINUX, "cuda")
        assert isinstance(way, GitHubFetch)
        assert way.resolve(said.append) is way
        assert (way.release, way.backend) == ("b11146", "cuda-12.8")
        assert way.verified == "sha256 pinned by llamalite"
        assert way.origin == (
            f"{github.url}/ggml-org/llama.cpp/releases/download/b11146/"
            f"llama-b11146-bin-ubuntu-cuda-12.8-x64.tar.gz"
        )
        assert "168.9 MB) and cudart-llama-b11146" in way.describe()
    assert github.requests == []


def test_a_backend_without_a_pinned_digest_is_asked_for(
    github: LoopbackGitHub, said: list[str]
) -> None:
    file = f"llama-{PINNED.tag}-bin-ubuntu-sycl-fp16-x64.tar.gz"
    github.publish(PINNED.tag, {file: b"sycl"})
    github.publish_version("v0.5.1", PINNED.tag)
    for release in (None, "latest"):
        found = resolved(said, release=release, backend="sycl")
        assert (found.asset.file, found.asset.sha256) == (file, digest(b"sycl"))
        assert found.backend == "sycl-fp16"


def test_what_upstream_never_published_and_other_sources_names_are_no_way() -> None:
    assert github_way(PINNED, None, LINUX, "tpu") is None
    assert github_way(PINNED, None, Platform("macos", "x64"), "metal") is None
    assert github_way(PINNED, "npm:3.22.1", LINUX, "cpu") is None


@pytest.mark.parametrize(
    "name", ["b", "../b1", "b1/../../x", "v1", "main", "b12345678", "b1\n2", "b\u0661"]
)
def test_what_is_no_release_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match="there is no release"):
        github_way(PINNED, name, LINUX, "cpu")


# ---------------------------------------------------------------- the releases API


def test_another_build_is_verified_by_the_api(github: LoopbackGitHub, said: list[str]) -> None:
    found = resolved(said, backend="cuda")
    file = f"llama-{NEW}-bin-ubuntu-cuda-12.8-x64.tar.gz"
    assert (found.asset.file, found.asset.sha256) == (file, digest(file.encode()))
    assert found.asset.runtime is not None
    assert found.asset.runtime.sha256 == digest(RUNTIMES[0].encode())
    assert found.verified == f"sha256 from the releases API at {github.url}/api/v3"
    assert github.requests == [f"/api/v3/repos/ggml-org/llama.cpp/releases/tags/{NEW}"]


@pytest.mark.parametrize("name", ["latest", "v0.9.0"])
def test_a_version_leads_to_its_build_through_its_note(
    github: LoopbackGitHub, said: list[str], name: str
) -> None:
    way = github_way(PINNED, name, LINUX, "cpu")
    assert way is not None
    assert way.release is None
    found = way.resolve(said.append)
    assert (found.release, found.asset.file) == (NEW, f"llama-{NEW}-bin-ubuntu-x64.tar.gz")
    assert said == [f"llama.cpp v0.9.0 is build {NEW}"]
    asked = [path for path in github.requests if path.startswith("/api")]
    assert [path.rpartition("releases/")[2] for path in asked] == [
        "latest" if name == "latest" else "tags/v0.9.0",
        f"tags/{NEW}",
    ]


def test_a_known_version_needs_no_note(github: LoopbackGitHub, said: list[str]) -> None:
    table = replace(PINNED, aliases={**PINNED.aliases, "v0.9.0": NEW})
    assert resolved(said, release="latest", table=table).release == NEW
    assert not any("storage" in path for path in github.requests)
    github.requests.clear()
    assert resolved(said, release="v0.9.0", table=table).release == NEW
    assert len(github.requests) == 1


def test_latest_that_is_the_pinned_release_has_its_digests(
    github: LoopbackGitHub, said: list[str]
) -> None:
    github.publish_version("v0.5.1", PINNED.tag)
    found = resolved(said, release="latest")
    assert (found.asset, found.verified) == (
        PINNED.asset("linux-x64", "cpu"),
        "sha256 pinned by llamalite",
    )


def test_a_latest_that_holds_builds_itself_is_taken(
    github: LoopbackGitHub, said: list[str]
) -> None:
    github.latest = NEW
    assert resolved(said, release="latest", platform=WINDOWS).asset.file.endswith("win-cpu-x64.zip")


def test_what_a_release_lacks_is_said_with_what_it_has(
    github: LoopbackGitHub, said: list[str]
) -> None:
    message = refusal(said, LibraryNotFound, backend="cuda-11.7")
    assert "b11434 has no cuda-11.7 build for linux-x64" in message
    assert "cpu, cuda-12.8, cuda-13.4, openvino-2026.4.1, rocm-10.0, sycl-fp16" in message
    message = refusal(said, LibraryNotFound, release="b4")
    assert "llama.cpp has no release b4" in message
    refusal(said, LibraryNotFound, release="v9.9.9")


@pytest.mark.parametrize(
    "note", [b"", b"main", b"v0.9.0", b"b1\nb2", b"b" * 300, b"\xff\xfe", b"b1/"]
)
def test_a_note_that_names_no_build_is_refused(
    github: LoopbackGitHub, said: list[str], note: bytes
) -> None:
    github.releases["v0.9.0"]["nightly-tag.txt"] = note
    for github.api_down in (False, True):
        assert "nightly-tag.txt" in refusal(said, release="latest")


def test_a_version_without_a_note_is_refused(github: LoopbackGitHub, said: list[str]) -> None:
    github.releases["v0.9.0"] = {"readme.txt": b""}
    assert "neither builds nor a note" in refusal(said, LibraryNotFound, release="latest")
    github.api_down = True
    assert "answered 503" in refusal(said, LibraryNotFound, release="latest")


# ---------------------------------------------------------------- without the API


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("rate_limited", "has its rate limit used up until"),
        ("api_down", "answered 503"),
        ("no_api", "answered 404, as a mirror without such an API does"),
        ("swallow_api", "can't be reached (no answer"),
    ],
)
def test_without_the_api_only_the_pinned_build_is_trusted(
    github: LoopbackGitHub,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    reason: str,
) -> None:
    monkeypatch.setattr(github_api, "CALL_LIMIT_S", 0.3)
    setattr(github, trouble, True)
    message = refusal(said, release="latest")
    assert f"llama.cpp {NEW} (cpu, linux-x64) can't be verified" in message
    assert reason in message
    assert "--allow-unverified" in message
    assert reason in refusal(said, release=NEW)

    found = resolved(said, release="latest", backend="cuda", allow_unverified=True)
    assert (found.release, found.verified) == (NEW, "not verified")
    assert found.asset.file == f"llama-{NEW}-bin-ubuntu-cuda-12.8-x64.tar.gz"
    assert found.asset.runtime is not None
    assert "size unknown" in found.describe()
    assert said[-1].startswith("warning: ")
    assert "will not be verified" in said[-1]
    assert reason in said[-1]

    github.publish_version("v0.5.0", PINNED.tag)
    for name in ("latest", "v0.5.0", PINNED.tag, None):
        found = resolved(said, release=name)
        assert (found.asset, found.verified) == (
            PINNED.asset("linux-x64", "cpu"),
            "sha256 pinned by llamalite",
        )


def test_a_rate_limit_says_when_it_ends(github: LoopbackGitHub, said: list[str]) -> None:
    github.rate_limited = True
    message = refusal(said)
    assert "(in 30 minutes); GITHUB_TOKEN raises it" in message


def test_an_asset_without_a_digest_is_refused_unless_allowed(
    github: LoopbackGitHub, said: list[str]
) -> None:
    github.no_digests = True
    assert "has no sha256 of llama-b11434-bin-ubuntu-x64.tar.gz" in refusal(said)
    found = resolved(said, allow_unverified=True)
    assert (found.verified, found.asset.sha256) == ("not verified", None)
    assert found.asset.n_bytes == len(found.asset.file)


@pytest.mark.parametrize("limit_s", [1.0, pytest.param(5.0, marks=pytest.mark.matrix)])
def test_an_api_that_swallows_is_given_up_in_time(
    github: LoopbackGitHub, said: list[str], monkeypatch: pytest.MonkeyPatch, limit_s: float
) -> None:
    assert github_api.CALL_LIMIT_S == 5.0
    monkeypatch.setattr(github_api, "CALL_LIMIT_S", limit_s)
    github.swallow_api = True
    started = time.monotonic()
    assert f"no answer in {limit_s:g} s" in refusal(said)
    assert time.monotonic() - started < limit_s + 2


def test_a_host_that_refuses_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_GITHUB_URL", "http://127.0.0.1:9/")
    for release in (None, "latest"):
        way = github_way(PINNED, release, LINUX, "cpu")
        assert way is not None
        assert way.problem() == "http://127.0.0.1:9 can't be reached: refused"


# ---------------------------------------------------------------- answers that mean harm


def asset(**changes: Any) -> dict[str, Any]:
    file = f"llama-{NEW}-bin-ubuntu-x64.tar.gz"
    return {"name": file, "size": 5, "digest": f"sha256:{digest(b'x')}", **changes}


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>sign in</html>",
        b"",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"b1"',
        b"[" * 100_000,
        b'{"tag_name": ' + b"9" * 10_000 + b"}",
        {},
        {"tag_name": NEW},
        {"tag_name": 7, "assets": []},
        {"tag_name": "../../x", "assets": []},
        {"tag_name": "b1", "assets": [asset()]},
        {"tag_name": NEW, "assets": {}},
        {"tag_name": NEW, "assets": None},
        {"tag_name": NEW, "assets": [7]},
        {"tag_name": NEW, "assets": [None] * 5000},
        {"tag_name": NEW, "assets": [{}]},
        {"tag_name": NEW, "assets": [asset(name=None)]},
        {"tag_name": NEW, "assets": [asset(size="5")]},
        {"tag_name": NEW, "assets": [asset(size=-1)]},
        {"tag_name": NEW, "assets": [asset(size=True)]},
        {"tag_name": NEW, "assets": [asset(size=1 << 60)]},
        {"tag_name": NEW, "assets": [asset(size=1e300)]},
        {"tag_name": NEW, "assets": [asset(digest=7)]},
        {"tag_name": NEW, "assets": [asset(digest="sha256:zz")]},
        {"tag_name": NEW, "assets": [asset(digest="sha256:" + "0" * 63)]},
        {"tag_name": NEW, "assets": [asset(), asset()]},
        {"tag_name": NEW, "assets": [], "padding": "x" * (5 << 20)},
    ],
    ids=lambda answer: str(answer)[:40],
)
def test_a_malformed_answer_is_refused_in_one_line(
    github: LoopbackGitHub, said: list[str], answer: Any
) -> None:
    github.api_answer = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    message = refusal(said)
    assert "can't be verified, because the releases API" in message
    assert len(message) < 500


def test_a_digest_of_another_kind_and_an_unfinished_upload_are_none(
    github: LoopbackGitHub, said: list[str]
) -> None:
    other = asset(digest="sha512:" + "0" * 128)
    github.api_answer = json.dumps({"tag_name": NEW, "assets": [other]}).encode()
    assert "has no sha256 of" in refusal(said)
    unfinished = asset(state="starter")
    github.api_answer = json.dumps({"tag_name": NEW, "assets": [unfinished]}).encode()
    assert "it has none for that platform" in refusal(said, LibraryNotFound)


def test_a_file_of_another_build_is_none_of_this_release(
    github: LoopbackGitHub, said: list[str]
) -> None:
    other = asset(name="llama-b5640-bin-ubuntu-x64.tar.gz")
    github.api_answer = json.dumps({"tag_name": NEW, "assets": [other]}).encode()
    assert "it has none for that platform" in refusal(said, LibraryNotFound)


def test_files_are_fetched_from_where_the_user_said_and_nowhere_else(
    github: LoopbackGitHub, said: list[str]
) -> None:
    elsewhere = asset(browser_download_url="http://127.0.0.1:9/evil.tar.gz")
    github.api_answer = json.dumps({"tag_name": NEW, "assets": [elsewhere]}).encode()
    assert resolved(said).origin.startswith(f"{github.url}/ggml-org/llama.cpp/releases/download/")


# ---------------------------------------------------------------- tokens and addresses


def tokens(github: LoopbackGitHub) -> dict[str, str | None]:
    pairs = zip(github.requests, github.headers, strict=True)
    return {path: headers.get("authorization") for path, headers in pairs}


def test_a_token_goes_to_the_api_alone(
    github: LoopbackGitHub, said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GH_TOKEN", "gho_secret")
    found = resolved(said, release="latest")
    with pytest.raises(DownloadError):
        found.fetch(tmp_path, tmp_path / "cache", said.append)  # its content is no archive
    assert len(github.requests) == 6
    for path, token in tokens(github).items():
        assert token == ("Bearer gho_secret" if path.startswith("/api") else None)


def test_a_token_does_not_follow_a_redirect(
    github: LoopbackGitHub, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    with serving() as other:
        other.releases = github.releases
        monkeypatch.setattr(
            "support.loopback_github._Handler.answer_api",
            lambda self, tag: (
                self.answer(302, b"", {"Location": other.url + self.path})
                if self.state is github
                else self.answer(200, json.dumps(other.api_release(tag)).encode())
            ),
        )
        assert resolved(said).release == NEW
        assert set(tokens(github).values()) == {"Bearer ghp_secret"}
        assert set(tokens(other).values()) == {None}


def test_a_token_that_is_not_accepted_is_left_out(
    github: LoopbackGitHub, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from support import loopback_github

    plain = loopback_github._Handler.answer_api

    def answer_api(self: Any, tag: str) -> None:
        if "Authorization" in self.headers:
            self.answer(401, b'{"message": "Bad credentials"}')
        else:
            plain(self, tag)

    monkeypatch.setattr("support.loopback_github._Handler.answer_api", answer_api)
    monkeypatch.setenv("GITHUB_TOKEN", "expired")
    assert resolved(said).verified.startswith("sha256 from")
    assert any("GITHUB_TOKEN" in line and "going without" in line for line in said)


@pytest.mark.parametrize("token", ["", " \n", "a\r\nX: y", "é", "x" * 600])
def test_what_is_no_token_is_not_sent(
    github: LoopbackGitHub, said: list[str], monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", token)
    resolved(said)
    assert set(tokens(github).values()) == {None}


def test_a_token_is_not_sent_in_the_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_secret")
    for url, is_sent in (
        ("https://api.github.com", True),
        ("https://git.example.org/api/v3", True),
        ("http://git.example.org/api/v3", False),
        ("http://localhost.example.org", False),
        ("http://127.evil.example.org", False),
        ("http://127.0.0.1:80/api/v3", True),
    ):
        monkeypatch.setenv("LLAMALITE_GITHUB_API_URL", url)
        assert (github_api._secrets() != [{}]) == is_sent, url


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLAMALITE_GITHUB_URL", "LLAMALITE_GITHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)
    assert (github_url(), api_url()) == ("https://github.com", "https://api.github.com")
    monkeypatch.setenv("LLAMALITE_GITHUB_URL", "https://git.example.org/")
    assert (github_url(), api_url()) == (
        "https://git.example.org",
        "https://git.example.org/api/v3",
    )
    monkeypatch.setenv("LLAMALITE_GITHUB_API_URL", "https://api.example.org/")
    assert api_url() == "https://api.example.org"


# ---------------------------------------------------------------- lists


def test_what_a_release_has_is_listed(github: LoopbackGitHub, said: list[str]) -> None:
    rows = published("latest", PINNED, said.append)
    assert len(rows) == len(NAMES) - 1
    assert {row.release for row in rows} == {NEW}
    assert all(row.verified.startswith("sha256 from the releases API") for row in rows)
    linux = [row.backend for row in rows if row.platform == "linux-x64"]
    assert linux[0] == "cpu"
    cuda = next(row for row in rows if row.file.endswith("ubuntu-cuda-12.8-x64.tar.gz"))
    assert cuda.n_bytes == len(cuda.file) + len(RUNTIMES[0])
    github.no_digests = True
    assert {row.verified for row in published(NEW, PINNED, said.append)} == {"not verified"}


def test_the_pinned_release_is_listed_with_and_without_the_api(
    github: LoopbackGitHub, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sycl = f"llama-{PINNED.tag}-bin-win-sycl-x64.zip"
    github.publish(PINNED.tag, {sycl: b"x", "llama-b11146-bin-win-cpu-x64.zip": b"forged"})
    rows = {row.file: row for row in published(None, PINNED, said.append)}
    assert len(rows) == 15
    assert rows[sycl].verified.startswith("sha256 from")
    cpu = rows["llama-b11146-bin-win-cpu-x64.zip"]
    assert (cpu.verified, cpu.n_bytes) == ("sha256 pinned by llamalite", 18560055)
    for trouble, reason in (("api_down", "answered 503"), ("", "has no release b11146")):
        github.releases.pop(PINNED.tag, None)
        github.api_down = trouble == "api_down"
        said.clear()
        assert len(published("v0.5.0", PINNED, said.append)) == 14
        assert said[0].startswith("only builds with pinned digests are listed: ")
        assert reason in said[0]
    github.api_down = True
    with pytest.raises(DownloadError, match="answered 503"):
        published("latest", PINNED, said.append)
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    github.requests.clear()
    assert len(published(None, PINNED, said.append)) == 14
    with pytest.raises(Offline):
        published("latest", PINNED, said.append)
    assert github.requests == []


# ---------------------------------------------------------------- whole fetches


@pytest.mark.parametrize("tag", ["b5640", "b7100", "b7250", "b11434"])
def test_archives_of_every_era_are_fetched(
    github: LoopbackGitHub, said: list[str], tmp_path: Path, tag: str
) -> None:
    file, content = linux_archive(write_build(tmp_path / "made"), tag)
    github.releases[tag] = {file: content}
    into = tmp_path / "staging" / "lib"
    into.mkdir(parents=True)
    resolved(said, release=tag).fetch(into, tmp_path / "cache", said.append)
    files = scan_folder(into)
    assert [path.name for path in files.backends] == ["libggml-cpu-x64.so"]
    assert files.llama.read_bytes()[:4] == b"\x7fELF"
    assert not (into / "llama-cli").exists()
    assert [path.name for path in into.parent.iterdir()] == ["lib"]


def test_cuda_comes_with_its_runtime(
    github: LoopbackGitHub, said: list[str], tmp_path: Path
) -> None:
    made = write_build(tmp_path / "made")
    _, content = linux_archive(made, NEW)
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    from support.archives import Entry, tar_gz_of

    files = github.releases[NEW]
    files[f"llama-{NEW}-bin-ubuntu-cuda-12.8-x64.tar.gz"] = content
    files[RUNTIMES[0]] = tar_gz_of([Entry("libcudart.so.12", b"cuda"), Entry("LICENSE", b"other")])
    into = tmp_path / "staging" / "lib"
    into.mkdir(parents=True)
    resolved(said, backend="cuda").fetch(into, tmp_path / "cache", said.append)
    assert (into / "libcudart.so.12").read_bytes() == b"cuda"
    assert scan_folder(into)


def test_a_windows_archive_is_fetched_for_windows(
    github: LoopbackGitHub, said: list[str], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for name in ("llama.dll", "ggml.dll", "ggml-base.dll", "ggml-cpu-x64.dll"):
        (made / name).write_bytes(b"MZ " + name.encode())
    file, content = windows_archive(made, NEW)
    github.releases[NEW] = {file: content}
    into = tmp_path / "staging" / "lib"
    into.mkdir(parents=True)
    resolved(said, platform=WINDOWS).fetch(into, tmp_path / "cache", said.append)
    assert sorted(path.name for path in into.iterdir()) == [
        "LICENSE",
        "ggml-base.dll",
        "ggml-cpu-x64.dll",
        "ggml.dll",
        "llama.dll",
    ]


@pytest.mark.parametrize("name", [name for name in HOSTILE if "bomb" not in name])
def test_hostile_archives_are_refused_and_leave_nothing(
    github: LoopbackGitHub, said: list[str], tmp_path: Path, name: str
) -> None:
    hostile = HOSTILE[name]
    tag = "b5640" if hostile.suffix == ".zip" else NEW
    github.releases[tag] = {f"llama-{tag}-bin-ubuntu-x64{hostile.suffix}": hostile.make()}
    into = tmp_path / "staging" / "lib"
    into.mkdir(parents=True)
    with pytest.raises(DownloadError, match=hostile.said) as caught:
        resolved(said, release=tag).fetch(into, tmp_path / "cache", said.append)
    assert "\n" not in str(caught.value)
    assert [path.name for path in into.parent.iterdir()] == ["lib"]
    assert list((tmp_path / "cache").iterdir()) == []
