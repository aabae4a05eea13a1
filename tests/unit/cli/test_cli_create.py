from __future__ import annotations

import os
from pathlib import Path

import pytest
from cli_process import llamalite_here as llamalite
from support.gguf_models import write_llama

from llamalite.cli import create
from llamalite.config import ModelConfig
from llamalite.errors import InvalidParameter
from llamalite.models.locate import locate
from llamalite.models.modelfile import parse_modelfile
from llamalite.models.store.named import all_named, read_named


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    write_llama(tmp_path / "tiny.gguf")
    write_llama(tmp_path / "lora.gguf", **{"general.type": "adapter"})
    return tmp_path


def write(folder: Path, text: str) -> str:
    path = folder / "Modelfile"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(code: int, *args: str) -> str:
    done = llamalite("create", *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("llamalite: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_preset_is_made_and_means_its_model(folder: Path) -> None:
    file = write(folder, "FROM tiny.gguf\nADAPTER lora.gguf 0.5\nSYSTEM Du bist Mario.\n")
    done = llamalite("create", "mario:1", "-f", file)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"created mario:1: {folder / 'tiny.gguf'} with settings of its own\n"
    preset = ModelConfig(
        model=str(folder / "tiny.gguf"),
        system_prompt="Du bist Mario.",
        adapters=((str(folder / "lora.gguf"), 0.5),),
    )
    assert read_named("Mario:1") == preset
    assert locate("mario:1").path == folder / "tiny.gguf"
    assert "in use" in refused(2, "MARIO:1", "-f", file)
    write(folder, "FROM mario:1\n")
    assert "stands for mario:1 itself" in refused(2, "mario:1", "--force", "-f", file)
    done = llamalite("create", "-q", "luigi", "-f", "-", stdin="FROM mario:1\nSYSTEM Luigi\n")
    assert (done.returncode, done.stderr) == (0, "")
    found = locate("luigi").preset
    assert found is not None
    assert found.to_dict() == {**preset.to_dict(), "system_prompt": "Luigi"}
    assert (
        llamalite("create", "mario:1", "--force", "-f", write(folder, "FROM tiny.gguf")).returncode
        == 0
    )
    assert read_named("mario:1") == ModelConfig(model=str(folder / "tiny.gguf"))


def test_what_is_not_here_yet_is_said(folder: Path) -> None:
    done = llamalite("create", "smollm2", "-f", write(folder, "FROM hf:o/r:Q4_0\n"))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "smollm2 now stands for this and no longer for the model of the catalog",
        "created smollm2: hf:o/r:Q4_0 with settings of its own",
        "hf:o/r:Q4_0 is not on this computer yet: 'llamalite pull smollm2' fetches it",
    ]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("FROM tiny.gguf\nPARAMTER top_k 5\n", 2, "line 2: PARAMTER is no directive"),
        ("FROM gone.gguf\n", 5, "there is no file"),
        ("FROM zzz\n", 5, "FROM 'zzz': no model is called 'zzz'"),
        ("FROM tiny.gguf\nADAPTER gone.gguf\n", 5, "gone.gguf: can't be opened (No such file"),
        ("FROM tiny.gguf\nADAPTER tiny.gguf\n", 5, "tiny.gguf is no LoRA adapter: it is a model"),
        ("FROM tiny.gguf\nADAPTER Modelfile\n", 5, "Modelfile: is no GGUF file"),
        ("FROM ../tiny.gguf\n", 2, "line 1: '../tiny.gguf' leads out of the Modelfile's folder"),
    ],
)
def test_what_is_wrong_is_one_line_and_makes_nothing(
    folder: Path, text: str, code: int, says: str
) -> None:
    assert says in refused(code, "mario", "-f", write(folder, text))
    assert read_named("mario") is None


def test_names_and_files_that_can_not_be_are_refused(folder: Path) -> None:
    file = write(folder, "FROM tiny.gguf\n")
    before = sorted(folder.iterdir())
    for name in ("../../mario", "a/b", "/mario", "mario.gguf", "nul"):
        assert "choose another" in refused(2, name, "-f", file)
    assert "can't read" in refused(2, "mario", "-f", str(folder / "gone"))
    assert "wrong arguments" in refused(2)
    assert sorted(folder.iterdir()) == before
    assert all_named() == {}


def test_a_preset_takes_no_models_name(folder: Path) -> None:
    (folder / "home" / "models").mkdir(parents=True)
    write_llama(folder / "home" / "models" / "st.gguf")
    file = write(folder, "FROM st\n")
    for arguments in (["ST"], ["st", "--force"]):
        with pytest.raises(InvalidParameter, match=r"'(ST|st)' is the name of a model here"):
            create.main([*arguments, "-f", file])
    assert create.main(["-q", "s", "-f", file]) == 0


def test_a_modelfile_without_an_end_is_refused(folder: Path) -> None:
    large = folder / "large"
    large.write_bytes(b"\n" * 1_000_001)
    for place in filter(os.path.exists, ("/dev/zero", str(large))):
        with pytest.raises(InvalidParameter, match=f"{place} has more than 1.0 MB"):
            create.main(["mario", "-f", place])


def test_a_modelfile_that_is_shown_can_be_created_from(folder: Path) -> None:
    text = 'FROM tiny.gguf\nSYSTEM """a\n"b\n"""\nPARAMETER stop "x "\nMESSAGE user hi\n'
    assert llamalite("create", "one", "-f", write(folder, text)).returncode == 0
    done = llamalite("show", "--modelfile", "one")
    assert done.returncode == 0, done.stderr
    assert parse_modelfile(done.stdout, "elsewhere") == read_named("one")
