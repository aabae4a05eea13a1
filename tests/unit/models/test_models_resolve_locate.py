from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from models_tiny_wheel import CONTENT
from support.gguf_models import write_llama

from llamalite.config import ModelConfig
from llamalite.errors import AmbiguousFile, InvalidParameter, ModelNotFound
from llamalite.models.locate import HubTarget, Located, UrlTarget, locate
from llamalite.models.names.catalog import CatalogEntry, find_entry
from llamalite.models.store.named import write_named

MAIN = "a" * 40
OTHER = "b" * 40


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "tiny.bin")


def cache(folder: Path, tiny: Path, repo: str, *files: str, ref: str = "main") -> Path:
    """Put files into the Hub's cache as any program would; return the snapshot."""
    commit = MAIN if ref == "main" else OTHER
    root = folder / "hub" / ("models--" + repo.replace("/", "--"))
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / ref).write_text(commit)
    for file in files:
        path = root / "snapshots" / commit / file
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tiny, path)
    return root / "snapshots" / commit


def configure(folder: Path, text: str) -> None:
    (folder / "home").mkdir(exist_ok=True)
    (folder / "home" / "config.toml").write_text(text)


def test_names_are_read_in_order(
    empty_computer: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = cache(empty_computer, tiny, "Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q8_0.gguf")
    own = cache(empty_computer, tiny, "o/r", "m-Q4_0.gguf") / "m-Q4_0.gguf"
    assert locate("qwen3:4b-q8_0").path == snapshot / "Qwen3-4B-Q8_0.gguf"
    configure(empty_computer, '[aliases]\n"qwen3:4b-q8_0" = "hf:o/r"\nmine = "hf:q/s"\n')
    assert locate("qwen3:4b-q8_0").path == own
    write_named("MINE", ModelConfig(model="o/r:Q4_0"), replace=False)
    assert locate("mine").path == own
    monkeypatch.chdir(empty_computer)
    Path("mine").touch()
    assert locate("mine") == Located("mine", Path("mine"), names=("mine",))
    assert locate(Path("mine")).path == Path("mine")
    Path("mine").unlink()
    with pytest.raises(ModelNotFound, match="there is no file 'mine'"):
        locate(Path("mine"))


def test_presets_carry_their_settings_through_other_names(empty_computer: Path, tiny: Path) -> None:
    path = cache(empty_computer, tiny, "o/r", "m-Q4_0.gguf") / "m-Q4_0.gguf"
    lower = ModelConfig(
        model="hf:o/r:q4_0",
        n_ctx=512,
        n_gpu_layers=3,
        system_prompt="low",
        sampling={"temperature": 0.1, "top_k": 5},
        messages=(("user", "hi"),),
        license="MIT",
    )
    write_named("lower", lower, replace=False)
    write_named(
        "upper",
        ModelConfig(model="LOWER", n_gpu_layers=0, system_prompt="", sampling={"top_k": 9}),
        replace=False,
    )
    write_named("alias", ModelConfig(model="upper"), replace=False)
    found = locate("Alias")
    assert found.path == path
    assert found.target == HubTarget("o/r", quant="q4_0")
    assert found.names == ("Alias", "upper", "LOWER", "hf:o/r:q4_0")
    assert found.preset is not None
    assert found.preset.to_dict() == {
        **lower.to_dict(),
        "n_gpu_layers": 0,
        "system_prompt": "",
        "sampling": {"temperature": 0.1, "top_k": 9},
    }
    assert locate("lower").preset == lower
    assert locate("hf:o/r:q4_0").preset is None


@pytest.mark.parametrize("last", ["a", "A", "b"])
def test_names_that_lead_in_a_circle_are_refused(last: str) -> None:
    for name, model in {"a": "b", "b": "c", "c": last}.items():
        write_named(name, ModelConfig(model=model), replace=False)
    with pytest.raises(InvalidParameter, match=f"'a' stands for 'b' .*'{last}', .* in a circle"):
        locate("a")


def test_what_an_alias_stands_for_may_be_missing() -> None:
    write_named("gone", ModelConfig(model="/no/such.gguf"), replace=False)
    with pytest.raises(ModelNotFound, match=r"'gone' stands for '/no/such.gguf': there is no file"):
        locate("gone")


def test_a_catalog_model_that_is_missing_has_a_target() -> None:
    found = locate("QWEN3:4b")
    entry = find_entry("qwen3:4b")
    assert entry is not None
    assert found == Located(
        "QWEN3:4b",
        None,
        HubTarget(entry.repo, "Q4_K_M", entry.file, entry=entry),
        names=("QWEN3:4b", "qwen3:4b"),
    )
    assert locate("qwen3:4b-q2_k").target == HubTarget(entry.repo, "Q2_K")


def test_any_quantization_will_do_where_the_name_leaves_it_open(
    empty_computer: Path, tiny: Path
) -> None:
    files = ["Qwen3-4B-Q8_0.gguf", "Qwen3-4B-Q5_K_M.gguf", "Qwen3-4B-Q2_K.gguf"]
    for file, chosen in zip(files, ["Q8_0", "Q5_K_M", "Q5_K_M"], strict=True):
        snapshot = cache(empty_computer, tiny, "Qwen/Qwen3-4B-GGUF", file)
        found = locate("qwen3:4b")
        assert found.path == snapshot / f"Qwen3-4B-{chosen}.gguf"
        assert f"qwen3:4b: taking {chosen}, " in found.note
        target = found.target
        assert isinstance(target, HubTarget)
        assert target.quant == "Q4_K_M"
    assert locate("qwen3:4b-q4_k_m").path is not None, "that is the same name"
    cache(empty_computer, tiny, "Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf")
    found = locate("qwen3:4b")
    assert (found.path, found.note) == (snapshot / "Qwen3-4B-Q4_K_M.gguf", "")


def test_a_pinned_name_means_its_own_bytes_alone(
    empty_computer: Path, tiny: Path, entry: CatalogEntry
) -> None:
    cache(empty_computer, tiny, entry.repo, "Tiny.Q8_0.gguf", entry.file)
    assert locate("tiny:1k").path is None
    path = empty_computer / "home" / "models" / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert locate("TINY:1k").path == path


def test_a_family_s_name_is_satisfied_by_the_only_one_installed(
    empty_computer: Path, tiny: Path
) -> None:
    assert locate("qwen3").path is None
    repo = "Qwen/Qwen3-14B-GGUF"
    path = cache(empty_computer, tiny, repo, "Qwen3-14B-Q5_K_M.gguf") / "Qwen3-14B-Q5_K_M.gguf"
    found = locate("qwen3")
    assert found.path == path
    assert found.note == (
        "qwen3: taking qwen3:14b-q5_k_m, which is installed (qwen3:8b, the default, is not)"
    )
    cache(empty_computer, tiny, "Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf")
    found = locate("qwen3")
    assert (found.path, found.note) == (None, "")
    assert isinstance(found.target, HubTarget)
    assert found.target.repo == "Qwen/Qwen3-8B-GGUF"


def test_hub_references_are_looked_up_in_the_cache(empty_computer: Path, tiny: Path) -> None:
    snapshot = cache(
        empty_computer, tiny, "o/r", "m-Q4_K_S.gguf", "sub/m-Q8_0.gguf", "mmproj-m-F16.gguf"
    )
    cache(empty_computer, tiny, "o/r", "m-Q4_K_M.gguf", ref="v2")
    assert locate("o/r:q4_k_s").path == snapshot / "m-Q4_K_S.gguf"
    assert locate("o/r/sub/m-Q8_0.gguf").path == snapshot / "sub/m-Q8_0.gguf"
    assert locate("o/r:Q4_K_S@main").path == snapshot / "m-Q4_K_S.gguf"
    for name in ("o/r:Q4_K_M", "o/r:Q4_K", "o/r/m-Q8_0.gguf", "o/r:F16", "o/R2:Q8_0", "o/r@v1"):
        assert locate(name).path is None
    other = locate("hf:o/r:q4_k_m@v2")
    assert other.path is not None
    assert other.path.parent.name == OTHER
    assert other.target == HubTarget("o/r", "q4_k_m", revision="v2")
    open_one = locate("o/r")
    assert open_one.path == snapshot / "m-Q4_K_S.gguf"
    assert open_one.note.startswith("o/r: taking Q4_K_S, the nearest to Q4_K_M, as this computer's")


def test_a_split_model_is_there_when_all_its_parts_are(empty_computer: Path, tiny: Path) -> None:
    parts = [f"Q8_0/m-Q8_0-0000{i}-of-00002.gguf" for i in (1, 2)]
    snapshot = cache(empty_computer, tiny, "o/r", parts[1])
    for name in ("o/r:Q8_0", "o/r", f"o/r/{parts[1]}"):
        assert locate(name).path is None
    cache(empty_computer, tiny, "o/r", parts[0])
    for name in ("o/r:Q8_0", "o/r", f"o/r/{parts[1]}"):
        assert locate(name).path == snapshot / parts[0]


def test_several_files_of_one_quantization_are_listed(empty_computer: Path, tiny: Path) -> None:
    cache(empty_computer, tiny, "o/r", "a-Q4_0.gguf", "b-Q4_0.gguf")
    with pytest.raises(AmbiguousFile, match=r"a-Q4_0.gguf, b-Q4_0.gguf: name one"):
        locate("o/r:Q4_0")


def test_the_beginning_of_an_installed_name_is_enough_if_it_is_one_s_alone(
    empty_computer: Path, tiny: Path
) -> None:
    models = empty_computer / "home" / "models"
    models.mkdir(parents=True)
    for name in ("Zephyr-7B.Q4_0.gguf", "zed.gguf"):
        shutil.copyfile(tiny, models / name)
    cache(empty_computer, tiny, "someone/Zonk-1B-GGUF", "zonk-1b-Q8_0.gguf")
    found = locate("zephyr")
    assert found.path == models / "Zephyr-7B.Q4_0.gguf"
    assert found.note == "zephyr: taking Zephyr-7B.Q4_0, which is installed"
    assert found.target is None
    assert locate("ZED").note == ""
    zonk = locate("zonk-1b")
    assert isinstance(zonk.target, HubTarget)
    assert (zonk.target.repo, zonk.target.file) == ("someone/Zonk-1B-GGUF", "zonk-1b-Q8_0.gguf")
    assert zonk.installed is not None
    assert zonk.installed.path == zonk.path
    with pytest.raises(AmbiguousFile, match=r"'ze' means any of zed, Zephyr"):
        locate("ze")
    with pytest.raises(ModelNotFound, match="no model is called 'x', and no installed one begins"):
        locate("x")


def test_addresses_are_targets(empty_computer: Path, tiny: Path) -> None:
    address = "https://user:secret@example.org/m.gguf?token=1"
    assert locate(address) == Located(address, None, UrlTarget(address), names=(address,))
    here = f"file://{tiny}"
    assert locate(here) == Located(here, tiny, UrlTarget(here), names=(here,))
    with pytest.raises(ModelNotFound, match=r"there is no file /no/m.gguf"):
        locate("file:///no/m.gguf")
    with pytest.raises(InvalidParameter, match=r"names the computer host: .* three slashes"):
        locate("file://host/m.gguf")
    with pytest.raises(InvalidParameter, match="https://, http:// or file://, not ftp://"):
        locate("ftp://example.org/m.gguf")


def test_locating_uses_no_network_and_imports_little() -> None:
    program = (
        "import sys; from llamalite.models.locate import locate\n"
        "for name in ('smollm2:135m', 'o/r:Q4_0', 'https://x.org/m.gguf'): locate(name)\n"
        "costly = {'huggingface_hub', 'numpy', 'jinja2', 'tomlkit', 'socket', 'ctypes'}\n"
        "print(sorted(costly & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
