from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.gguf_models import TENSORS, pattern, write_every_type, write_llama

from llamalite.errors import BadField, GGUFError
from llamalite.gguf import GGMLType, GGUFReader, GGUFWriter, Typed, ValueType, edit_metadata

V = ValueType


@pytest.mark.parametrize(
    ("value", "kind", "element"),
    [
        (True, V.BOOL, None),
        (0, V.UINT32, None),
        (-1, V.INT32, None),
        (2**32, V.UINT64, None),
        (-(2**40), V.INT64, None),
        (0.5, V.FLOAT32, None),
        ("a", V.STRING, None),
        ([1, 2], V.ARRAY, V.INT32),
        ((1, 2**31), V.ARRAY, V.INT64),
        ([2**64 - 1], V.ARRAY, V.UINT64),
        ([1, 0.5], V.ARRAY, V.FLOAT32),
        (["a"], V.ARRAY, V.STRING),
        ([True], V.ARRAY, V.BOOL),
        ([[1], ["a"]], V.ARRAY, V.ARRAY),
        (Typed(1, V.UINT8), V.UINT8, None),
        (Typed([], V.FLOAT64), V.ARRAY, V.FLOAT64),
        (range(3), V.ARRAY, V.INT32),
    ],
    ids=repr,
)
def test_types_are_chosen(tmp_path: Path, value: Any, kind: V, element: V | None) -> None:
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("k", value)
    with GGUFReader(tmp_path / "m.gguf") as reader:
        assert reader.metadata.type_of("k") is kind
        assert getattr(reader.metadata["k"], "type", None) is element
        plain = value.value if isinstance(value, Typed) else value
        assert reader.metadata["k"] == (list(plain) if isinstance(plain, range) else plain)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, None),
        ({}, None),
        ([], None),
        ([1, "a"], None),
        ([1, [2]], None),
        (2**64, None),
        (256, V.UINT8),
        (-1, V.UINT32),
        (1.5, V.INT32),
        (1e300, V.FLOAT32),
        (1, V.STRING),
        ("a", V.INT32),
        (2, V.BOOL),
        (1, V.ARRAY),
        ([1], V.ARRAY),
        ("\ud800", None),
    ],
    ids=repr,
)
def test_values_that_do_not_fit(tmp_path: Path, value: Any, kind: V | None) -> None:
    with pytest.raises(BadField, match="'k' can't be written"):
        GGUFWriter(tmp_path / "m.gguf").add("k", value, kind)


def test_surrogates_round_trip_as_bytes(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("k", ["\udcff", b"\xfe"])
    assert list(GGUFReader(tmp_path / "m.gguf").metadata["k"]) == ["\udcff", "\udcfe"]


def test_keys_and_tensors_are_checked(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf")
    writer.add("k", 1)
    writer.add_tensor("t", (4,), GGMLType.F32, bytes(16))
    for key in ("k", "", "x" * 65536, "\ud800"):
        with pytest.raises(BadField):
            writer.add(key, 1)
    for name, shape, kind, content in (
        ("t", (4,), 0, bytes(16)),
        ("x" * 65, (4,), 0, bytes(16)),
        ("u", (4,), 99, bytes(16)),
        ("u", (33,), GGMLType.Q8_0, bytes(34)),
        ("u", (1,) * 5, 0, bytes(4)),
        ("u", (4,), 0, bytes(15)),
        ("u", (4,), 0, "text"),
    ):
        with pytest.raises(BadField):
            writer.add_tensor(name, shape, kind, content)
    for how in ({"version": 1}, {"byteorder": "pdp"}, {"alignment": 24}):
        with pytest.raises(BadField):
            GGUFWriter(tmp_path / "m.gguf", **how)
    writer.write()
    assert [t.name for t in GGUFReader(tmp_path / "m.gguf").tensors] == ["t"]


def test_numpy_arrays_and_views_are_written_in_row_order(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add_tensor("plain", (4, 3), GGMLType.F32, values)
        writer.add_tensor("turned", (3, 4), GGMLType.F32, values.T)
        writer.add_tensor("none", (0, 3), GGMLType.F32, values[:, :0])
        writer.add_tensor("one", (), GGMLType.F32, memoryview(bytes(4)))
    with GGUFReader(tmp_path / "m.gguf") as reader:
        read = {t.name: np.frombuffer(reader.tensor_bytes(t), np.float32) for t in reader.tensors}
        assert read["plain"].tolist() == values.ravel().tolist()
        assert read["turned"].tolist() == values.T.ravel().tolist()
        assert [t.n_bytes for t in reader.tensors] == [48, 48, 0, 4]
        del read


def test_alignment_is_kept_and_written(tmp_path: Path) -> None:
    with GGUFReader(write_every_type(tmp_path / "m.gguf", alignment=512)) as reader:
        assert reader.alignment == reader.metadata["general.alignment"] == 512
        assert all(t.start % 512 == 0 for t in reader.tensors)


def test_nothing_appears_until_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_text("old")
    with pytest.raises(RuntimeError), GGUFWriter(path):
        raise RuntimeError
    writer = GGUFWriter(path)
    source = write_every_type(tmp_path / "s.gguf")
    with GGUFReader(source) as reader:
        tensor = reader.tensors[-1]
    writer._add_tensor("t", tensor.shape, tensor.type, tensor_range(source, 10**6), tensor.n_bytes)
    with pytest.raises(GGUFError, match="can't be written"):
        writer.write()
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.gguf", "s.gguf"]
    with pytest.raises(GGUFError, match="can't be written") as caught:
        GGUFWriter(tmp_path / "no" / "folder.gguf").write()
    assert "\n" not in str(caught.value)


def tensor_range(path: Path, start: int) -> Any:
    from llamalite.gguf.writer import _FileRange

    return _FileRange(os.fspath(path), start, 72)


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_editing_changes_only_what_is_asked(tmp_path: Path, byteorder: str) -> None:
    source = write_every_type(tmp_path / "m.gguf", byteorder=byteorder, version=2, alignment=64)
    edited = tmp_path / "edited.gguf"
    changes = {"t.uint8": 9, "t.float64": 1, "a.int16": [3], "new": "x", "t.int8": Typed("s", 8)}
    edit_metadata(source, edited, changes, remove=["a.string", "t.true"])
    with GGUFReader(source) as old, GGUFReader(edited) as new:
        assert (new.version, new.byteorder, new.alignment) == (2, byteorder, 64)
        kept = [key for key in old.metadata if key not in ("a.string", "t.true")]
        assert list(new.metadata) == [*kept, "new"]
        for key in set(kept) - set(changes):
            assert new.metadata.raw(key) == old.metadata.raw(key)
        assert (new.metadata["t.uint8"], new.metadata.type_of("t.uint8")) == (9, V.UINT8)
        assert (new.metadata["t.float64"], new.metadata.type_of("t.float64")) == (1.0, V.FLOAT64)
        assert (new.metadata["a.int16"], new.metadata["a.int16"].type) == ([3], V.INT16)
        assert (new.metadata["t.int8"], new.metadata["new"]) == ("s", "x")
        for name, _, _, n_bytes in TENSORS:
            tensor = next(t for t in new.tensors if t.name == name)
            assert new.tensor_bytes(tensor) == pattern(name, n_bytes)


def test_a_file_can_be_edited_in_place(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "m.gguf")
    before = GGUFReader.from_bytes(path.read_bytes())
    edit_metadata(path, path, {"tokenizer.chat_template": "{{ 2 }}", "general.alignment": 128})
    with GGUFReader(path) as reader:
        assert reader.summary.chat_templates["default"] == "{{ 2 }}"
        assert reader.alignment == 128
        for old, new in zip(before.tensors, reader.tensors, strict=True):
            assert before.tensor_bytes(old) == reader.tensor_bytes(new)


def test_edits_that_can_not_be_made_leave_no_file(tmp_path: Path) -> None:
    source = write_every_type(tmp_path / "m.gguf")
    for changes, removed, words in (
        ({"t.uint8": 256}, [], "UINT8"),
        ({"t.string": 5}, [], "no text"),
        ({}, ["none"], "no key 'none'"),
    ):
        with pytest.raises(BadField, match=words):
            edit_metadata(source, tmp_path / "edited.gguf", changes, removed)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_removing_the_alignment_returns_to_32(tmp_path: Path) -> None:
    source = write_every_type(tmp_path / "m.gguf", alignment=64)
    edit_metadata(source, source, remove=["general.alignment"])
    with GGUFReader(source) as reader:
        assert reader.alignment == 32
        assert reader.tensor_bytes(reader.tensors[1]) == pattern(TENSORS[1][0], TENSORS[1][3])
