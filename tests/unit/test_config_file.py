"""Editing the configuration file: comments stay, nobody's edit is lost, never half a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from llamalite import config
from llamalite.config import LLMConfig, file, keys
from llamalite.errors import InvalidParameter, LlamaliteError

WRITTEN = """\
# mine
n_ctx = 2048  # small

[sampling]  # taste
temperature = 0.5
"""


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path))
    monkeypatch.delenv("LLAMALITE_CONFIG", raising=False)
    return tmp_path / "config.toml"


def test_comments_and_order_stay(path: Path) -> None:
    path.write_text(WRITTEN)
    path.chmod(0o640)
    file.set_value(["n_ctx"], 4096)
    assert path.read_text() == WRITTEN.replace("2048", "4096")
    file.set_value(["n_batch"], 64)  # goes above the tables
    file.set_value(["models", "a.b:c", "sampling", "stop"], ["a\n", '"'])
    assert file.read_config() == {
        "n_ctx": 4096,
        "n_batch": 64,
        "sampling": {"temperature": 0.5},
        "models": {"a.b:c": {"sampling": {"stop": ["a\n", '"']}}},
    }
    file.remove_value(["sampling", "temperature"])
    assert "# mine" in path.read_text()
    assert "# taste" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_value_goes_below_the_line_that_explains_it_and_leaves_that_behind(path: Path) -> None:
    explained = keys.commented_file()
    path.write_text(explained)
    for where, value in {
        ("server", "port"): 9000,
        ("n_ctx",): 512,
        ("aliases", "tiny"): "x:y",
    }.items():
        file.set_value(where, value)
    lines = path.read_text().splitlines()
    assert lines[lines.index("port = 9000") - 1] == "#port = 8080"
    assert lines[lines.index("n_ctx = 512") - 1].startswith("#n_ctx =")
    assert lines.index("n_ctx = 512") < lines.index("[sampling]")
    assert lines[-1] == 'tiny = "x:y"'
    file.set_value(["server", "port"], 9001)
    assert file.read_config()["server"] == {"port": 9001}
    for where in (["server", "port"], ["n_ctx"], ["aliases", "tiny"]):
        file.remove_value(where)
    assert path.read_text() == explained


def test_what_a_removal_empties_goes_too(path: Path) -> None:
    path.write_text("n_ctx = 1\n\n[sampling]  # taste\ntop_k = 1\n")
    path.write_text(path.read_text() + '\n[models."a:b"]\nn_ctx = 5\n')
    file.set_value(["models", "a:b", "sampling", "top_k"], 3)
    file.set_value(["models", "c.d", "sampling", "top_k"], 3)
    file.remove_value(["models", "c.d", "sampling", "top_k"])
    assert list(file.read_config()["models"]) == ["a:b"]
    file.remove_value(["models", "a:b"])
    assert "models" not in path.read_text()
    file.remove_value(["sampling", "top_k"])
    assert file.read_config() == {"n_ctx": 1, "sampling": {}}
    assert "# taste" in path.read_text()


@pytest.mark.parametrize(
    "content", ["sampling.top_k = 3", "sampling = {top_k = 3}", "[sampling]\ntop_k = 3", "", "\r\n"]
)
def test_a_table_may_be_written_in_any_way(path: Path, content: str) -> None:
    path.write_bytes(content.encode())
    file.set_value(["sampling", "seed"], 5)
    assert file.read_config()["sampling"]["seed"] == 5


def test_a_new_file_is_private_and_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "llamalite.toml"
    real.parent.mkdir()
    path.symlink_to(real)
    file.set_value(["n_ctx"], 1)
    assert path.is_symlink()
    assert real.read_text() == "n_ctx = 1\n"
    assert real.stat().st_mode & 0o777 == 0o600


def test_two_who_edit_at_once_both_get_their_way(path: Path) -> None:
    code = (
        "import sys; from llamalite.config import file\n"
        "for i in range(5): file.set_value(['aliases', f'{sys.argv[1]}{i}'], 'm')"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, name]) for name in "ab"]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(file.read_config()["aliases"]) == 10
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        ".config.toml.lock",
        "config.toml",
    ]


def test_what_cannot_be_edited_stays_as_it_is(path: Path) -> None:
    for content in ("n_ctx =", "sampling = 5"):
        path.write_text(content)
        with pytest.raises(InvalidParameter, match=re.escape(str(path))):
            file.set_value(["sampling", "top_k"], 1)
        assert path.read_text() == content


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
def test_what_is_no_regular_file_is_neither_read_nor_replaced(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(path)
    for place in (path, Path(os.devnull), path.parent):
        monkeypatch.setenv("LLAMALITE_CONFIG", str(place))
        with pytest.raises(InvalidParameter, match="is no regular file"):
            config.load_config()
    monkeypatch.setenv("LLAMALITE_CONFIG", str(path))
    for edit in (
        lambda: file.set_value(["n_ctx"], 1),
        lambda: file.write_config("", replace=True),
    ):
        with pytest.raises(InvalidParameter, match="is no regular file"):
            edit()
    assert path.is_fifo()


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(WRITTEN)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LlamaliteError, match=r"can't be written \(No space left on device\)"):
        file.set_value(["n_ctx"], 1)
    assert path.read_text() == WRITTEN
    assert not list(path.parent.glob(".config-*"))


def test_a_stuck_editor_is_not_waited_for_forever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "_LOCK_TIMEOUT_S", 0.1)
    with file._held(), pytest.raises(LlamaliteError, match="in use by another program"):
        file.set_value(["n_ctx"], 1)


def test_the_explained_file_sets_nothing_and_its_lines_are_the_defaults(path: Path) -> None:
    content = keys.commented_file()
    file.write_config(content, replace=False)
    assert config.load_config() == LLMConfig()
    with pytest.raises(InvalidParameter, match="--force"):
        file.write_config("", replace=False)
    said = content.split("\n# What holds for one model alone")[0]
    path.write_text(re.sub(r"^#(\w+ = )", r"\1", said, flags=re.M))
    assert config.load_config() == LLMConfig()
    assert len(file.read_config()["sampling"]) >= 28
    for word in ("[0, 4294967295]", "none = physical cores", "#n_threads =\n", "(0, 1e+06]"):
        assert word in said


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("n_ctx", ("n_ctx",)),
        ("sampling.top_k", ("sampling", "top_k")),
        ("aliases.my.own", ("aliases", "my.own")),
        ("models.a.b/c:Q4.n_ctx", ("models", "a.b/c:Q4", "n_ctx")),
        ("models.m.sampling.top_k", ("models", "m", "sampling", "top_k")),
    ],
)
def test_a_key_says_where_it_lies(key: str, where: tuple[str, ...]) -> None:
    assert keys.split_key(key) == where


def test_quotes_around_parts_of_a_key_are_left_out() -> None:
    for key in ('models."a.b".n_ctx', "models.'a.b'.\"n_ctx\"", "models.a.b.n_ctx"):
        assert keys.without_quotes(key) == "models.a.b.n_ctx"
    for key in ('aliases."x', "a'b'.c", '""', "models.x'.n_ctx"):
        assert keys.without_quotes(key) == key


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("top_k", "sampling.top_k"), ("num_ctx", "n_ctx"), ("server.prot", "server.port"),
        ("models.m.temp", "models.NAME.sampling.temperature"), ("models..n_ctx", "n_ctx"),
        ("models", "config show"), ("models.m.model", "config show"), ("", "config show"),
        ("aliases.", "config show"),
    ],
)  # fmt: skip
def test_an_unknown_key_has_a_hint(key: str, meant: str) -> None:
    with pytest.raises(InvalidParameter, match=re.escape(meant)):
        keys.split_key(key)
