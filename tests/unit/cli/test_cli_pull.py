"""`llamalite pull` against a Hub on loopback: every form, every refusal, every interruption."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_process import ROOT, llamalite
from support.gguf_models import raw_field, raw_file, raw_string
from support.loopback_hub import LoopbackHub
from support.unreachable_hosts import closed_port

from llamalite.cli.main import main
from llamalite.libs.transfer.reach import forget_answers
from llamalite.models.store.installed import installed_models

CHUNK = 1 << 18  # what a transfer writes at once
needs_signals = pytest.mark.skipif(os.name == "nt", reason="there are no such signals")


def model(label: str, n_bytes: int = 1000) -> bytes:
    """Return a small GGUF file that differs from others."""
    facts = {"general.architecture": "llama", "general.name": label}
    fields = [raw_field(key, 8, raw_string(value)) for key, value in facts.items()]
    return raw_file(fields, values=random.Random(label).randbytes(n_bytes))


BIG = model("big", 6_000_000)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub, and an empty computer that asks it."""
    forget_answers()
    with LoopbackHub(
        repos={
            "o/m": {"m-Q4_K_M.gguf": model("m4"), "m-Q8_0.gguf": model("m8")},
            "o/split": {f"s-Q8_0-0000{i}-of-00002.gguf": model(f"s{i}") for i in (1, 2)},
            "o/eyes": {"e-Q8_0.gguf": model("e"), "mmproj-e-F16.gguf": model("eyes")},
            "o/two": {"a-Q8_0.gguf": model("a"), "b-Q8_0.gguf": model("b")},
            "o/gated": {"g-Q8_0.gguf": model("g")},
            "o/big": {"big-Q8_0.gguf": BIG},
        },
        revisions={"o/m": {"v1": {"m-Q8_0.gguf": model("old m8")}}},
        gated={"o/gated"},
    ) as server:
        settings = {
            "LLAMALITE_HOME": str(tmp_path / "home"),
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": server.url,
            "HF_TOKEN": "hf_secret",
            "PYTHONPATH": str(ROOT),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "LLAMALITE_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield server
        assert not any("authorization" in asked for asked in server.requests("storage", "GET"))


Captured = pytest.CaptureFixture[str]


def pulled(capsys: Captured, *args: str) -> list[Path]:
    """Pull in this process, which must succeed; return what went to stdout."""
    code = main(["pull", *args])
    out, err = capsys.readouterr()
    assert code == 0, err
    return [Path(line) for line in out.splitlines()]


def refusal(capsys: Captured, code: int, *args: str) -> str:
    """Pull in this process, which must fail; return the last line of stderr."""
    found = main(["pull", *args])
    out, err = capsys.readouterr()
    assert (found, out) == (code, ""), err
    lines = err.splitlines()
    assert [line.startswith("llamalite: ") for line in lines].count(True) == 1
    return lines[-1]


def names() -> list[str]:
    return [found.name for found in installed_models()]


@pytest.mark.parametrize(
    ("args", "content"),
    [
        (["o/m:q8_0"], [model("m8")]),
        (["hf:o/m/m-Q8_0.gguf"], [model("m8")]),
        (["o/m"], [model("m4")]),
        (["o/m:Q8_0@v1"], [model("old m8")]),
        (["o/m:Q8_0", "--revision=v1"], [model("old m8")]),
        (["o/m", "-f", "m-Q8_0.gguf"], [model("m8")]),
        (["o/split"], [model("s1")]),
        (["o/m:Q8_0", "o/two/a-Q8_0.gguf"], [model("m8"), model("a")]),
        (["--quiet", "o/m:Q4_K_M"], [model("m4")]),
    ],
)
def test_every_form_of_a_hub_reference(
    hub: LoopbackHub, capsys: Captured, args: list[str], content: list[bytes]
) -> None:
    assert [path.read_bytes() for path in pulled(capsys, *args)] == content
    assert len(names()) == len(content)


def test_addresses_and_files(hub: LoopbackHub, capsys: Captured, tmp_path: Path) -> None:
    disk = tmp_path / "disk.gguf"
    disk.write_bytes(model("disk"))
    url = f"{hub.storage_url}/o/two/a-Q8_0.gguf"
    web, copy = pulled(capsys, url, disk.as_uri())
    assert (web.read_bytes(), copy.read_bytes()) == (model("a"), model("disk"))
    assert names() == ["a-Q8_0", "disk"]


def test_json_says_all_there_is_to_say(hub: LoopbackHub, capsys: Captured) -> None:
    assert main(["pull", "--json", "o/eyes", "o/m:Q8_0"]) == 0
    out, err = capsys.readouterr()
    eyes, other = map(json.loads, out.splitlines())
    assert Path(eyes["projector"]).read_bytes() == model("eyes")
    assert (eyes["name"], eyes["source"], eyes["was_here"]) == ("o/eyes:Q8_0", "hub", False)
    assert eyes["n_bytes"] == len(model("e"))
    assert eyes["paths"] == [eyes["path"]]
    assert other["projector"] is None
    assert "o/eyes:Q8_0 is here now (1.1 kB, with its projector)" in err
    assert main(["pull", "-q", "--json", "--no-projector", "o/m:Q8_0"]) == 0
    out, err = capsys.readouterr()
    assert (json.loads(out)["was_here"], err) == (True, "")


def test_each_refusal_is_one_line(hub: LoopbackHub, capsys: Captured) -> None:
    said = refusal(capsys, 8, "o/gated")
    assert f"HF_TOKEN that is set isn't let in: accept the terms at {hub.url}/o/gated" in said
    assert "no such repository, or a private one where the HF" in refusal(capsys, 8, "o/none:Q8_0")
    assert "there is no such revision" in refusal(capsys, 8, "o/m:Q8_0@v9")
    said = refusal(capsys, 5, "o/m:Q2_K")
    assert "o/m has no GGUF file for Q2_K; it has Q4_K_M, Q8_0" in said
    said = refusal(capsys, 5, "o/two:Q8_0")
    assert "means any of a-Q8_0.gguf, b-Q8_0.gguf: name one of them" in said
    assert "o/m has no GGUF file x.gguf" in refusal(capsys, 5, "o/m", "-f", "x.gguf")
    assert "did you mean" in refusal(capsys, 5, "smolm2")
    assert "wrong arguments" in refusal(capsys, 2)
    assert "--file goes with one MODEL, not 2" in refusal(capsys, 2, "-f", "x", "o/m", "o/two")
    assert "is refused" in refusal(capsys, 2, "o/m", "--file=../../x.gguf")
    assert "--revision is empty" in refusal(capsys, 2, "o/m", "--revision=")
    assert names() == []


def test_the_token_lets_in_at_the_hub_and_goes_nowhere_else(
    hub: LoopbackHub, capsys: Captured
) -> None:
    hub.token = "hf_secret"
    assert pulled(capsys, "o/gated")[0].read_bytes() == model("g")
    asked = [(path, sent) for host, _, path, sent in hub.seen if host == "hub" and "gated" in path]
    assert {sent.get("authorization") for _, sent in asked} == {"Bearer hf_secret"}, asked
    assert hub.requests("storage", "GET")  # the fixture looks at those


def test_a_flipped_byte_leaves_no_usable_model(
    hub: LoopbackHub, capsys: Captured, tmp_path: Path
) -> None:
    hub.flipped = True
    said = refusal(capsys, 8, "o/m:Q8_0")
    assert "sha256" in said
    assert "nothing was kept" in said
    assert not list(tmp_path.rglob("*.gguf"))
    assert not [path for path in (tmp_path / "hf").rglob("blobs/*") if path.is_file()]
    hub.flipped = False
    assert pulled(capsys, "o/m:Q8_0")[0].read_bytes() == model("m8")


def test_passing_troubles_pass(hub: LoopbackHub, capsys: Captured) -> None:
    hub.api_answers, hub.answers, hub.retry_after = [500], [429], "0"
    hub.cuts = [300_000]
    assert pulled(capsys, "o/big:Q8_0")[0].read_bytes() == BIG


def test_without_a_network_one_line_says_so(
    hub: LoopbackHub, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["pull", "o/m:Q8_0"]) == 0
    capsys.readouterr()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    assert "can't be reached (refused)" in refusal(capsys, 8, "o/two:Q8_0")
    assert main(["pull", "o/m:Q8_0"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert "what is here already stays in use" in err
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    assert "forbids fetching it from" in refusal(capsys, 8, "o/two:Q8_0")


SMALL_DISK = (
    "mount -t tmpfs -o size={size} tmpfs {folder} && exec {python} -m llamalite pull {name}"
)


def pull_onto_small_disk(folder: Path, size: str, name: str) -> subprocess.CompletedProcess[str]:
    """Pull into a cache on a file system of its own that only the child sees."""
    folder.mkdir(exist_ok=True)
    command = f"mount -t tmpfs -o size={size} small {folder} && exec {sys.executable} -m llamalite"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f"{command} pull {name}"],
        env={**os.environ, "HF_HOME": str(folder)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "llamalite" not in done.stderr:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    return done


@pytest.mark.skipif(sys.platform != "linux", reason="needs a mount namespace")
def test_a_disk_without_room_is_refused_before_anything_comes(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    done = pull_onto_small_disk(tmp_path / "small", "2m", "o/big:Q8_0")
    assert (done.returncode, done.stdout) == (8, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("llamalite: o/big/big-Q8_0.gguf needs 6.0 MB")
    assert "are free: " in last
    assert not hub.sent


@needs_signals
def test_a_disk_that_fills_up_on_the_way_is_one_line_and_what_came_is_kept(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000));"
        "from llamalite.cli.main import main; sys.exit(main(['pull', 'o/big:Q8_0']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (8, "")
    assert "what arrived is kept" in done.stderr.splitlines()[-1]
    assert names() == []
    sent = hub.sent.total()
    assert llamalite("pull", "o/big:Q8_0").returncode == 0
    assert begin_of(hub.ranges_asked()[-1]) > 3_000_000 - CHUNK
    assert hub.sent.total() - sent < len(BIG) - 3_000_000 + CHUNK


WARM = """
import os, sys
import docopt, filelock
from huggingface_hub import constants, get_token
from llamalite.cli import pull
from llamalite.cli.main import main
from llamalite.config import layers, settings
from llamalite.libs.transfer import download, web
from llamalite.models import url
from llamalite.models.store import installed
from llamalite.models.pull import hub, plans
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        os._exit(main(line.split()))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.fixture
def warm(hub: LoopbackHub) -> Iterator[subprocess.Popen[str]]:
    """A process that forks one command line for each line it is given, with no time for imports."""
    server = subprocess.Popen(
        [sys.executable, "-c", WARM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield server
    server.communicate(timeout=30)


@needs_signals
@pytest.mark.parametrize("form", ["o/big:Q8_0", "{}/o/big/big-Q8_0.gguf"])
def test_killed_at_ten_random_moments_less_than_a_chunk_comes_twice(
    hub: LoopbackHub, warm: subprocess.Popen[str], tmp_path: Path, form: str
) -> None:
    command = f"pull --quiet {form.format(hub.storage_url)}"
    assert warm.stdin is not None
    assert warm.stdout is not None
    hub.slow = 6_000_000
    rng = random.Random(4)
    # Two before the transfer begins, the others on the way.
    moments = [-rng.random(), -rng.random(), *(rng.randrange(1, 500_000) for _ in range(8))]
    reached = [0]  # how much of the file the storage had sent when each pull was killed
    for moment in moments:
        n_asked, n_sent = len(hub.ranges_asked()), hub.sent.total()
        child = start(warm, command)
        if moment < 0:
            time.sleep(0.1 * -moment)
        else:
            wait_for(hub, n_sent + moment)
        os.kill(child, signal.SIGKILL)
        assert ended(warm) == signal.SIGKILL
        time.sleep(0.05)  # for the storage to notice
        assert names() == []
        for asked in hub.ranges_asked()[n_asked:]:
            begun = begin_of(asked)
            assert reached[-1] - begun < CHUNK
            reached.append(begun + hub.sent.total() - n_sent)
    assert len(reached) > 8
    hub.slow = None
    start(warm, command)
    assert ended(warm) == 0
    assert reached[-1] - begin_of(hub.ranges_asked()[-1]) < CHUNK
    assert len(names()) == 1
    assert installed_models()[0].path.read_bytes() == BIG
    left = [path for path in tmp_path.rglob("*") if path.suffix in (".incomplete", ".part")]
    assert left == []


def start(warm: subprocess.Popen[str], line: str) -> int:
    """Let the warm process run a command line, and return the child's id."""
    assert warm.stdin is not None
    assert warm.stdout is not None
    warm.stdin.write(line + "\n")
    warm.stdin.flush()
    return int(warm.stdout.readline())


def ended(warm: subprocess.Popen[str]) -> int:
    """Return how the child ended."""
    assert warm.stdout is not None
    return int(warm.stdout.readline())


def begin_of(asked: str | None) -> int:
    """Return the first byte of a `Range`."""
    return int((asked or "bytes=0-").removeprefix("bytes=").partition("-")[0])


@needs_signals
def test_ctrl_c_says_what_is_kept_and_the_next_pull_goes_on(hub: LoopbackHub) -> None:
    hub.slow = 4_000_000
    child = subprocess.Popen(
        [sys.executable, "-m", "llamalite", "pull", "o/big:Q8_0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(hub, 1_000_000)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert (child.returncode, out) == (130, "")
    assert err.splitlines()[-1].endswith(
        "stopped; what arrived is kept, and the next pull goes on there"
    )
    assert "Traceback" not in err
    assert names() == []
    hub.slow = None
    sent = hub.sent.total()
    assert llamalite("pull", "o/big:Q8_0").returncode == 0
    assert hub.sent.total() - sent < len(BIG) - 1_000_000 + 2 * CHUNK


def test_two_at_once_fetch_once(hub: LoopbackHub) -> None:
    hub.slow = 6_000_000
    command = [sys.executable, "-m", "llamalite", "pull", "--json", "o/big:Q8_0"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [child.communicate(timeout=60) for child in both]
    assert [child.returncode for child in both] == [0, 0], ended
    paths = {json.loads(out)["path"] for out, _ in ended}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == BIG
    assert hub.sent["o/big/big-Q8_0.gguf"] == len(BIG)
    assert any("waiting for it" in err for _, err in ended)


def test_without_a_terminal_progress_is_lines_that_only_rise(hub: LoopbackHub) -> None:
    hub.slow = 5_000_000
    done = llamalite("pull", "o/big:Q8_0")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if " % of 6.0 MB" in line]
    tenths = [int(line.split(" % ")[0].rpartition(" ")[2]) for line in lines]
    assert len(tenths) > 4
    assert tenths == sorted(set(tenths))
    assert all("MB/s, " in line and line.endswith(" s left") for line in lines[2:])
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


@needs_signals
def test_running_a_model_that_is_not_here_pulls_it(hub: LoopbackHub) -> None:
    done = llamalite("run", "o/m:Q8_0", "hello", env={"LLAMALITE_LIB": "/no/such/folder"})
    assert "Fetching o/m/m-Q8_0.gguf" in done.stderr
    assert names() == ["o/m:Q8_0"]


def wait_for(hub: LoopbackHub, n_bytes: int) -> None:
    """Wait until the storage has sent that much."""
    deadline = time.monotonic() + 30
    while hub.sent.total() < n_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.01)
