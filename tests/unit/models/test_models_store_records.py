"""What the store remembers: records and names, written by several processes and by dying ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llamalite.config import ModelConfig
from llamalite.errors import InvalidParameter, ModelError
from llamalite.models.store.atomic import UNFINISHED, locked
from llamalite.models.store.named import (
    all_named,
    check_free,
    names_folder,
    read_named,
    remove_named,
    write_named,
)
from llamalite.models.store.records import (
    Record,
    all_records,
    forget_record,
    read_record,
    records_folder,
    update_record,
)

TINY = ModelConfig(model="smollm2:135m", n_ctx=512, sampling={"temperature": 0.5})


def run_python(code: str, *args: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *args])


def test_a_record_keeps_what_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    assert read_record(path) is None
    assert update_record(path, source="url", origin="https://h/m.gguf").origin == "https://h/m.gguf"
    update_record(str(path), last_used=5.0, header={"n_params": 3}, removed=True)
    found = read_record(path)
    assert found == Record(
        str(path), "url", "https://h/m.gguf", last_used=5.0, header={"n_params": 3}, removed=True
    )
    assert all_records() == {str(path): found}
    update_record(path, removed=False, last_used=None)
    assert read_record(path) == Record(str(path), "url", "https://h/m.gguf", header={"n_params": 3})
    with pytest.raises(TypeError):
        update_record(path, colour="red")
    forget_record(path)
    forget_record(path)
    assert (read_record(path), all_records()) == (None, {})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 99999, b'{"path": 3}'])
def test_a_damaged_record_is_none_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    update_record(tmp_path / "m.gguf", source="url")
    (file,) = records_folder().glob("*.json")
    file.write_bytes(content)
    assert read_record(tmp_path / "m.gguf") is None
    assert all_records() == {}
    assert update_record(tmp_path / "m.gguf", origin="x") == Record(
        str(tmp_path / "m.gguf"), origin="x"
    )


def test_wrong_types_in_a_record_are_left_out(tmp_path: Path) -> None:
    update_record(tmp_path / "m.gguf", source="url")
    (file,) = records_folder().glob("*.json")
    file.write_text(f'{{"path": "{tmp_path / "m.gguf"}", "source": 3, "last_used": "x", "new": 1}}')
    assert read_record(tmp_path / "m.gguf") == Record(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "-1", "1e300", "9" * 400])
def test_times_that_are_no_dates_are_left_out(tmp_path: Path, value: str) -> None:
    update_record(tmp_path / "m.gguf", last_used=1.0)
    (file,) = records_folder().glob("*.json")
    file.write_text(file.read_text().replace("1.0", value))
    assert read_record(tmp_path / "m.gguf") == Record(str(tmp_path / "m.gguf"))


@pytest.mark.skipif(sys.platform == "win32", reason="devices lie elsewhere there")
@pytest.mark.parametrize("home", [os.devnull, "/" + "x" * 300, "/" + "x/" * 3000])
def test_a_home_that_can_not_be_is_empty(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_HOME", home)
    assert (read_named("a"), all_named(), remove_named("a")) == (None, {}, False)
    assert (read_record("a"), all_records()) == (None, {})
    check_free("a", [])
    with pytest.raises(ModelError, match="can't be written"):
        write_named("a", TINY, replace=False)


def test_accents_may_be_written_in_either_way() -> None:
    composed, taken_apart = "caf\u00e9", "cafe\u0301"
    write_named(taken_apart, TINY, replace=False)
    assert read_named(composed) == read_named(taken_apart) == TINY
    assert list(all_named()) == [composed]
    with pytest.raises(InvalidParameter, match="in use"):
        check_free(composed, [])
    assert remove_named(taken_apart)


def test_names_are_the_same_in_any_case() -> None:
    assert (read_named("Tiny"), all_named(), remove_named("Tiny")) == (None, {}, False)
    write_named("Tiny", TINY, replace=False)
    assert read_named("tINY") == TINY
    assert all_named() == {"Tiny": TINY}
    with pytest.raises(InvalidParameter, match="in use"):
        write_named("TINY", TINY, replace=False)
    write_named("TINY", ModelConfig(model="x"), replace=True)
    assert all_named() == {"TINY": ModelConfig(model="x")}
    assert remove_named("tiny")
    assert all_named() == {}


@pytest.mark.parametrize(
    "name", ["a.b", "tiny:1b", "a+b", "Ünï", "x" * 100, "é" * 100, "a..b", "1"]
)
def test_any_name_gets_a_file_of_its_own_in_the_folder(name: str) -> None:
    write_named(name, TINY, replace=False)
    write_named("other", TINY, replace=False)
    assert read_named(name) == TINY
    assert set(all_named()) == {name, "other"}
    files = {path.name for path in names_folder().iterdir()} - {".lock"}
    assert len(files) == 2
    assert all(len(os.fsencode(file)) < 255 and file.count(".") == 1 for file in files)


@pytest.mark.parametrize("name", ["", "..", "../a", "a/b", "a\\b", "/a", "a\0", "con", "-a", "a "])
def test_what_is_no_name_is_refused_and_found_nowhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParameter):
        write_named(name, TINY, replace=True)
    with pytest.raises(InvalidParameter):
        check_free(name, [])
    assert read_named(name) is None
    assert not remove_named(name)
    assert not list(tmp_path.rglob("*.json"))


def test_a_name_that_is_in_use_is_not_free() -> None:
    write_named("tiny", TINY, replace=False)
    check_free("small", ["other"])
    check_free("Tiny", [], replace=True)
    for name, taken in (("TINY", []), ("small", ["Small"])):
        with pytest.raises(InvalidParameter, match="choose another") as caught:
            check_free(name, taken)
        assert "--force" not in str(caught.value)  # import and cp have none


def test_a_damaged_name_is_said_and_spoils_no_other() -> None:
    write_named("good", TINY, replace=False)
    write_named("bad", TINY, replace=False)
    file = next(names_folder().glob("bad*.json"))
    said: list[str] = []
    for content in ("{", "[]", '{"name": "bad"}', '{"name": "good", "preset": {}}'):
        file.write_text(content)
        with pytest.raises(ModelError, match="is damaged"):
            read_named("bad")
        with pytest.raises(ModelError, match="is damaged"):
            all_named()
        assert set(all_named(said.append)) == {"good"}
    assert len(said) == 4
    assert all(str(file) in line and "\n" not in line for line in said)


WRITER = """
import sys
from llamalite.config import ModelConfig
from llamalite.models.store.named import write_named
from llamalite.models.store.records import update_record
field, path = sys.argv[1:]
for i in range(60):
    update_record(path, **{field: float(i)})
    write_named(f"{field}-{i}", ModelConfig(model=field), replace=False)
"""


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writers = [run_python(WRITER, field, str(path)) for field in ("added_at", "last_used")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    record = read_record(path)
    assert record is not None
    assert (record.added_at, record.last_used) == (59.0, 59.0)
    assert len(all_named()) == 120


KILLED = """
import os, signal, sys
from llamalite.config import ModelConfig
from llamalite.models.store import atomic, named, records
atomic.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "record":
    records.update_record(sys.argv[2], origin="new")
else:
    named.write_named("tiny", ModelConfig(model="new"), replace=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("what", ["record", "name"])
def test_killed_before_the_rename_the_old_state_stands(tmp_path: Path, what: str) -> None:
    path = tmp_path / "m.gguf"
    update_record(path, origin="old")
    write_named("tiny", TINY, replace=False)
    assert run_python(KILLED, what, str(path)).wait(60) == -signal.SIGKILL
    record = read_record(path)
    assert record is not None
    assert record.origin == "old"
    assert list(all_records()) == [str(path)]
    assert all_named() == {"tiny": TINY}
    left = [*records_folder().glob(f"*{UNFINISHED}"), *names_folder().glob(f"*{UNFINISHED}")]
    assert len(left) == 1
    update_record(path, origin="newer")  # the dead one's lock is no more
    write_named("tiny", ModelConfig(model="newer"), replace=True)
    assert [r.origin for r in all_records().values()] == ["newer"]
    assert all_named() == {"tiny": ModelConfig(model="newer")}
    assert not any(file.exists() for file in left)


def test_a_disk_that_is_full_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_record(tmp_path / "m.gguf", origin="old")

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llamalite.models.store.atomic.os.fsync", fail)
    with pytest.raises(ModelError, match="No space left on device"):
        update_record(tmp_path / "m.gguf", origin="new")
    assert {r.origin for r in all_records().values()} == {"old"}
    assert not list(records_folder().glob(f"*{UNFINISHED}"))


def test_a_stopped_process_that_has_the_lock_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamalite.models.store.atomic._PATIENCE_S", 0.05)
    with locked(records_folder()), pytest.raises(ModelError, match="kept locked by another"):
        update_record(tmp_path / "m.gguf", origin="x")
    assert update_record(tmp_path / "m.gguf", origin="x").origin == "x"
