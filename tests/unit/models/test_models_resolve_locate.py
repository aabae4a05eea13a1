from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from models_tiny_wheel import CONTENT
from support.gguf_models import write_llama
from support.hub_cache import add_snapshot

from llamalite.config import ModelConfig
from llamalite.errors import AmbiguousFile, InvalidParameter, ModelNotFound
from llamalite.models.locate import HubTarget, Located, UrlTarget, locate
from llamalite.models.names.catalog import CatalogEntry, find_entry
from llamalite.models.store import installed
from llamalite.models.store.installed import installed_models
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


def test_what_a_name_stands_for_is_no_path_of_the_current_folder(
    empty_computer: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache(empty_computer, tiny, "o/r", "m-Q4_0.gguf") / "m-Q4_0.gguf"
    write_named("fav", ModelConfig(model="m-Q4_0"), replace=False)
    write_named("hub", ModelConfig(model="o/r"), replace=False)
    write_named("whole", ModelConfig(model=str(tiny)), replace=False)
    write_named("relative", ModelConfig(model="./sub/x.gguf"), replace=False)
    for place in ("m-Q4_0", "o/r", "sub/x.gguf"):
        (empty_computer / "cwd" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(tiny, empty_computer / "cwd" / place)
    monkeypatch.chdir(empty_computer / "cwd")
    assert locate("fav").path == locate("hub").path == path
    assert locate("whole").path == tiny
    with pytest.raises(ModelNotFound, match=r"'relative' stands for './sub/x.gguf': .* whole one"):
        locate("relative")
    assert locate("m-Q4_0").path == Path("m-Q4_0")


def test_a_catalog_model_that_is_missing_has_a_target() -> None:
    found = locate("QWEN3:4b")
    entry = find_entry("qwen3:4b")
    assert entry is not None
    assert found == Located(
        "QWEN3:4b",
        None,
        HubTarget(entry.repo, "Q4_K_M", entry.file, entry=entry),
        names=("QWEN3:4b",),
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


def in_models_dir(empty_computer: Path, content: bytes, *files: str) -> list[Path]:
    paths = [empty_computer / "home" / "models" / file for file in files]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return paths


def test_a_whole_installed_name_wins_over_asking_the_network(
    empty_computer: Path, tiny: Path
) -> None:
    cached = cache(empty_computer, tiny, "Owner/Repo-GGUF", "m-Q4_K_M.gguf") / "m-Q4_K_M.gguf"
    by_host, one, _ = in_models_dir(
        empty_computer, tiny.read_bytes(), "example.org/a/m.gguf", "a/T.Q4_0.gguf", "b/T.Q4_0.gguf"
    )
    for name in ("owner/repo-gguf:q4_k_m", "owner/repo-gguf", "repo-gguf:q4_k_m", "M-q4_k_m"):
        found = locate(name)
        assert (found.path, found.begins) == (cached, "")
        assert isinstance(found.target, HubTarget)
        assert found.target.repo == "Owner/Repo-GGUF"
    assert locate("a/t.q4_0.gguf").path == one
    assert locate("m.gguf").path == by_host
    by_host.rename(by_host.with_name("n-Q4_0.gguf"))
    in_models_dir(empty_computer, tiny.read_bytes(), "n-Q4_0.gguf")
    assert locate("example.org/a/n-Q4_0.gguf").path == by_host.with_name("n-Q4_0.gguf")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("m-Q4_K_S.gguf", "o/r:Q4_K"),
        ("m-Q4_K_S.gguf", "r:Q4_K"),
        ("m-Q4_K_S.gguf", "o/r/m-Q4.gguf"),
        ("m-Q8_0.gguf", "o/r:Q8_0@v1"),
    ],
)
def test_what_says_more_than_a_word_is_never_completed(
    empty_computer: Path, tiny: Path, file: str, name: str
) -> None:
    cache(empty_computer, tiny, "o/r", file)
    try:
        assert locate(name).path is None
    except ModelNotFound:
        assert "/" not in name


def test_list_and_resolver_agree_on_whose_a_short_name_is(
    empty_computer: Path, entry: CatalogEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "CATALOG", [entry])
    (own,) = in_models_dir(empty_computer, CONTENT, entry.file)
    named = {m.name: m.path for m in installed_models()}
    assert locate("tiny:1k").path == own == named["tiny:1k"]
    cached = add_snapshot(empty_computer / "hub", entry.repo, {entry.file: CONTENT}) / entry.file
    named = {m.name: m.path for m in installed_models()}
    assert locate("tiny:1k").path == cached == named["tiny:1k"]
    os.truncate(cached, len(CONTENT) - 1)
    named = {m.name: m.path for m in installed_models()}
    assert locate("tiny:1k").path == own == named["tiny:1k"]


def test_addresses_of_the_hub_are_references(
    empty_computer: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = cache(empty_computer, tiny, "o/r", "m-Q4_K_S.gguf")
    monkeypatch.setenv("HF_ENDPOINT", "https://user:secret@mirror.example/hub/")
    for address in (
        "hf.co/o/r:Q4_K_S",
        "https://huggingface.co/o/r",
        "https://hf.co/o/r/tree/main",
        "https://mirror.example/hub/o/r/blob/main/m-Q4_K_S.gguf",
        "https://mirror.example/hub/o/r",
        "o/r:latest",
    ):
        found = locate(address)
        assert found.path == snapshot / "m-Q4_K_S.gguf"
        assert isinstance(found.target, HubTarget)
    for other in ("https://mirror.example/o/r/m.gguf", "http://mirror.example/hub/o/r/m.gguf"):
        assert locate(other).target == UrlTarget(other)


def test_a_name_whose_model_is_gone_says_so_whatever_folder_is_called_so(
    empty_computer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_named("s1", ModelConfig(model="gone"), replace=False)
    (empty_computer / "cwd" / "gone").mkdir(parents=True)
    monkeypatch.chdir(empty_computer / "cwd")
    with pytest.raises(ModelNotFound, match=r"'s1' stands for 'gone': no such model .* any more"):
        locate("s1")


def test_the_disk_is_surveyed_once_at_most(
    empty_computer: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_models_dir(empty_computer, tiny.read_bytes(), "Zephyr-7B.Q4_0.gguf")
    surveys = []
    whole = installed.survey
    monkeypatch.setattr(installed, "survey", lambda *a: surveys.append(1) or whole(*a))
    for name in (
        "zephyr",
        "ZEPHYR-7B.Q4_0",
        str(empty_computer / "home/models/Zephyr-7B.Q4_0.gguf"),
    ):
        found = locate(name)
        assert found.installed is not None
        assert found.installed is found.installed
        assert len(surveys) == 1
        surveys.clear()


def test_addresses_are_targets(empty_computer: Path, tiny: Path) -> None:
    address = "https://user:secret@example.org/m.gguf?token=1"
    assert locate(address) == Located(address, None, UrlTarget(address), names=(address,))
    here = f"file://{tiny}"
    assert locate(here) == Located(here, tiny, UrlTarget(here), names=(here,))
    with pytest.raises(ModelNotFound, match=r"there is no file '/no/m.gguf'"):
        locate("file:///no/m.gguf")
    with pytest.raises(InvalidParameter, match=r"names the computer host: .* three slashes"):
        locate("file://host/m.gguf")
    with pytest.raises(InvalidParameter, match="https://, http:// or file://, not ftp://"):
        locate("ftp://example.org/m.gguf")


@pytest.mark.parametrize("rest", ["[::1", "h:99999999/m.gguf", "h:x/m.gguf", "\u2100/m.gguf"])
@pytest.mark.parametrize("scheme", ["http", "HTTPS", "file"])
def test_malformed_addresses_are_refused_in_one_line(scheme: str, rest: str) -> None:
    with pytest.raises(InvalidParameter, match="is no address") as caught:
        locate(f"{scheme}://user:secret@{rest}")
    assert str(caught.value).isprintable()
    assert "secret" not in str(caught.value)


def test_a_file_address_that_is_no_path_is_shown_in_quotes() -> None:
    with pytest.raises(ModelNotFound, match=r"there is no file '/a\\x00b.gguf'"):
        locate("file:///a%00b.gguf")


def test_locating_uses_no_network_and_imports_little() -> None:
    program = (
        "import sys; from llamalite.models.locate import locate\n"
        "for name in ('smollm2:135m', 'o/r:Q4_0', 'https://x.org/m.gguf'): locate(name)\n"
        "costly = {'huggingface_hub', 'numpy', 'jinja2', 'tomlkit', 'socket', 'ctypes'}\n"
        "print(sorted(costly & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
