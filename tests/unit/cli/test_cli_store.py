"""list, rm, import, alias, cp, verify and prune through the real command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_process import llamalite_here as llamalite
from support.gguf_models import write_llama
from support.hub_cache import add_snapshot

from llamalite.cli.main import main
from llamalite.cli.tables import iso_time, time_text
from llamalite.config import ModelConfig
from llamalite.errors import ModelError
from llamalite.models.store.named import write_named

NAME = "owner/Tiny-GGUF:Q4_0"
Run = Callable[..., tuple[int, str, str]]
ENV = ("LLAMALITE_HOME", "HF_HUB_CACHE", "LLAMALITE_CONFIG", "LLAMALITE_MODELS_DIR")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ENV:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    return tmp_path / "home"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return write_llama(tmp_path / "source" / "Tiny.Q4_K_M.gguf")


@pytest.fixture
def cached(tmp_path: Path, source: Path) -> Path:
    """A model that another program fetched."""
    return add_snapshot(tmp_path / "hub", "owner/Tiny-GGUF", {"T-Q4_0.gguf": source.read_bytes()})


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The same in this process, which takes a tenth of the time: exit code, stdout, stderr."""

    def run(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(args))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def answer(*args: str, stdin: str = "") -> str:
    done = llamalite(*args, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer("list", "--json", "-q"))
    return found


def test_a_model_from_import_to_removal(home: Path, source: Path, cached: Path) -> None:
    assert answer("import", "--alias", "tiny", str(source)) == "Tiny.Q4_K_M\n"
    hub, own = listed()
    assert (hub["name"], hub["source"], hub["origin"]) == (NAME, "hub", "owner/Tiny-GGUF")
    assert (own["name"], own["names"], own["source"]) == ("Tiny.Q4_K_M", ["tiny"], "import")
    assert own["paths"] == [str(home / "models" / source.name)]
    assert (own["quantization"], own["n_ctx_train"]) == ("Q4_K_M", 2048)
    assert own["n_bytes"] == source.stat().st_size
    assert own["modified"].endswith("Z")
    table = answer("ls").splitlines()
    assert table[0].split() == ["NAME", "SIZE", "QUANT", "PARAMS", "MODIFIED", "FROM", "ALSO"]
    assert len(table) == 3
    assert str(home / "models" / source.name) in answer("list", "-v")

    done = llamalite("rm", "Tiny.Q4_K_M", stdin="y\n")
    assert (done.returncode, done.stdout) == (0, "Tiny.Q4_K_M\n")
    assert "tiny stands for it" in done.stderr
    assert [model["name"] for model in listed()] == [NAME, "tiny"]
    removed = json.loads(answer("remove", "-f", "-q", "--json", "tiny", NAME))
    assert {removal["name"]: len(removal["files"]) for removal in removed} == {"tiny": 1, NAME: 1}
    assert listed() == []
    assert source.exists()
    done = llamalite("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no models here yet" in done.stderr


def test_removing_asks(cached: Path) -> None:
    done = llamalite("rm", NAME, stdin="n\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"remove {NAME} (" in done.stderr
    assert "nothing was removed" in done.stderr
    done = llamalite("rm", NAME, stdin=None)
    assert (done.returncode, done.stdout) == (2, "")
    assert "add -f" in done.stderr
    assert len(listed()) == 1


def test_a_link_and_a_second_name(home: Path, source: Path) -> None:
    made = json.loads(answer("import", "--link", "--json", str(source)))
    assert (made["source"], made["origin"]) == ("link", str(source))
    done = llamalite("cp", "tiny", "second")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "second shares the file of Tiny.Q4_K_M\n"
    assert [model["name"] for model in listed()] == ["second", "Tiny.Q4_K_M"]


def test_aliases(source: Path, run: Run) -> None:
    run("import", str(source))
    assert answer("alias", "one", "tiny.q4") == "one -> Tiny.Q4_K_M\n"
    assert run("alias", "two", "ONE") == (0, "two -> ONE\n", "")
    assert run("alias", "three", str(source)) == (0, f"three -> {source}\n", "")
    code, out, said = run("alias", "four", "qwen3:8b")
    assert (code, out) == (0, "four -> qwen3:8b\n")
    assert "not on this computer yet" in said
    write_named("preset", ModelConfig(model="one", n_ctx=5), replace=False)
    assert [line.split() for line in run("alias")[1].splitlines()][1:] == [
        ["four", "qwen3:8b"],
        ["one", "Tiny.Q4_K_M"],
        ["preset", "one", "n_ctx"],
        ["three", str(source)],
        ["two", "ONE"],
    ]
    printed = json.loads(run("alias", "--json")[1])
    assert printed[2] == {"name": "preset", "model": "one", "n_ctx": 5}
    assert listed()[0]["names"] == ["one", "preset", "two"]
    for args, why in (
        (["alias", "one", "tiny"], "in use"),
        (["alias", "Tiny.Q4_K_M", "one"], "is the name of a model here"),
        (["alias", "--force", "one", "two"], "stands for one itself"),
        (["alias", "--remove", "one"], "stands for 'one'"),
        (["alias", "new", "nothing-like-it"], "nothing-like-it"),
        (["alias", "--remove", "nothing"], "no alias or preset"),
    ):
        code, out, said = run(*args)
        assert code in (2, 5), (args, said)
        assert why in said
        assert (out, said.count("\n")) == ("", 1)
    assert run("alias", "--force", "two", str(source)) == (0, f"two -> {source}\n", "")
    assert run("alias", "--remove", "two", "THREE") == (0, "two\nthree\n", "")
    assert source.exists()


def test_the_configurations_aliases_are_among_the_names(home: Path, run: Run) -> None:
    home.mkdir()
    (home / "config.toml").write_text('[aliases]\nfav = "qwen3:8b"\n')
    assert run("alias")[1].splitlines()[1].split() == ["fav", "qwen3:8b"]


def test_the_catalog_is_listed(run: Run) -> None:
    code, out, said = run("list", "--catalog")
    assert (code, said) == (0, "")
    row = next(line for line in out.splitlines() if line.startswith("qwen3:8b "))
    assert " ".join(row.split()) == "qwen3:8b qwen3 Q4_K_M* Q5_0 Q6_K Q8_0 32768 Apache-2.0"
    (model,) = [m for m in json.loads(run("list", "--catalog", "--json")[1]) if m["also"] == "phi4"]
    assert (model["name"], model["default"], model["n_ctx"]) == ("phi4:14b", "Q4_K_M", 16384)


def test_verify(home: Path, source: Path, cached: Path, run: Run) -> None:
    run("import", str(source))
    lines = answer("verify").splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "ok"]
    path = home / "models" / source.name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    code, out, said = run("verify", "--json", "tiny.q4")
    assert code == 8
    (verdict,) = json.loads(out)
    assert (verdict["state"], verdict["path"]) == ("wrong", str(path))
    assert verdict["found"] != verdict["expected"]
    assert f"'llamalite rm Tiny.Q4_K_M' and import it again from {source}" in said
    blob = (cached / "T-Q4_0.gguf").resolve()
    blob.write_bytes(path.read_bytes())
    assert "'llamalite pull --force owner/Tiny-GGUF:Q4_0'" in run("verify", NAME)[2]


def test_verify_goes_on_past_what_can_not_be_read(
    home: Path, source: Path, cached: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("import", str(source))
    run("list")

    def fail(path: Path, expected: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("llamalite.models.store.verify.file_digest", fail)
    code, out, said = run("verify")
    assert (code, out.count("CAN'T BE READ")) == (5, 2)
    assert "2 of 2 files can't be read" in said
    assert {verdict["state"] for verdict in json.loads(run("verify", "--json")[1])} == {
        "unreadable"
    }


def test_each_removal_is_printed_as_it_is_done(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        if path.name == "b.gguf":
            raise ModelError("b.gguf stays")

    monkeypatch.setattr("llamalite.models.store.removal.unlink_file", fail)
    (home / "models").mkdir(parents=True)
    for name in "abc":
        write_llama(home / "models" / f"{name}.gguf")
    assert run("rm", "-f", "a", "b", "c")[:2] == (5, "a\n")
    code, out, _ = run("rm", "-f", "--json", "a", "b", "c")
    assert (code, [removal["name"] for removal in json.loads(out)]) == (5, ["a"])


def test_times_that_are_no_dates_are_printed_as_none() -> None:
    for seconds in (1e300, float("inf"), float("nan")):
        assert (time_text(seconds), iso_time(seconds)) == ("", None)


def test_prune(cached: Path, run: Run) -> None:
    blob = cached.parents[1] / "blobs" / ("e" * 64 + ".incomplete")
    blob.write_bytes(bytes(2000))
    code, out, said = run("prune", "-n")
    assert code == 0
    assert str(blob) in out
    assert "1 thing, 2.0 kB, would be removed" in said
    done = llamalite("prune", stdin="\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert str(blob) in done.stderr
    assert blob.exists()
    assert json.loads(answer("prune", "-f", "--json", "-q")) == [
        {"path": str(blob), "what": "partial download", "n_bytes": 2000}
    ]
    assert not blob.exists()
    assert "nothing was left behind" in run("prune")[2]
    assert run("list", "-q")[1].count("\n") == 2


def test_a_broken_file_is_said_and_spoils_no_list(home: Path, cached: Path, run: Run) -> None:
    (home / "models").mkdir(parents=True)
    (home / "models" / "broken\n.gguf").write_bytes(b"GGUF")
    code, out, said = run("list", "--json")
    assert (code, len(json.loads(out))) == (0, 1)
    assert said.count("\n") == 1
    assert "left out" in said


def snapshot(folder: Path) -> dict[str, object]:
    """Return all that lies below a folder, without what reading alone may write."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if "records" in path.parts or path.name == ".lock":
            continue
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        else:
            found[str(path)] = path.read_bytes() if path.is_file() else None
    return found


def paths_out(tmp_path: Path) -> list[str]:
    victim = tmp_path / "outside" / "victim"
    return [
        "../outside/victim.gguf",
        "../../outside/victim",
        "../names/tiny",
        "..",
        f"{victim}",
        f"{victim}.gguf",
        "..\\outside\\victim",
        "C:\\outside\\victim.gguf",
        "hf:owner/../../outside/victim.gguf",
        "hf:owner/Tiny-GGUF/../../../../../outside/victim.gguf",
        "owner/Tiny-GGUF:Q4_0@../../../../../outside",
        "hf:owner/Tiny-GGUF/../T-Q4_0.gguf",
        "tiny/../../outside/victim",
        "tiny\0/../x",
        "",
    ]


def test_no_name_leads_out_of_the_store(
    tmp_path: Path,
    home: Path,
    source: Path,
    cached: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "outside").mkdir()
    write_llama(tmp_path / "outside" / "victim.gguf")
    (tmp_path / "outside" / "victim").write_text("kept")
    (tmp_path / "outside" / "victim.json").write_text("{}")
    run("import", "--alias=tiny", str(source))
    assert run("list")[0] == 0
    monkeypatch.chdir(home / "models")
    before = snapshot(tmp_path)
    for name in paths_out(tmp_path):
        for args in (
            ["rm", "-f", "--", name],
            ["rm", "-f", "--", "tiny", name],
            ["alias", "--remove", "--", name],
            ["alias", "--", name, "Tiny.Q4_K_M"],
            ["alias", "--force", "--", name, "Tiny.Q4_K_M"],
            ["import", f"--alias={name}", "--", str(source)],
            ["cp", "--", "tiny", name],
            ["cp", "--", "Tiny.Q4_K_M", name],
            ["cp", "--", name, "fresh"],
            ["verify", "--", name],
        ):
            code, out, said = run(*args)
            assert code in (2, 5), (args, out, said)
            assert (out, said.count("\n")) == ("", 1), (args, said)
    assert snapshot(tmp_path) == before


def test_a_path_may_get_a_name_and_stays_when_the_name_goes(tmp_path: Path, source: Path) -> None:
    assert main(["alias", "far", str(source)]) == 0
    before = snapshot(tmp_path / "source")
    assert main(["rm", "-f", "far"]) == 0
    assert snapshot(tmp_path / "source") == before
