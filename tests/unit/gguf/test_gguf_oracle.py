"""The same files through PyPI's gguf, an independent reader and writer."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from support.gguf_models import ARRAYS, SCALARS, TENSORS, write_every_type, write_vocabulary

from llamalite.gguf import Array, GGMLType, GGUFReader, ValueType, edit_metadata
from llamalite.gguf.constants import BLOCKS, FILE_TYPES

MODELS = Path(__file__).resolve().parents[4] / "shared" / "models"


def assert_equal_to_oracle(path: Path) -> None:
    oracle = gguf.GGUFReader(path)
    with GGUFReader(path) as reader:
        fields = {k: f for k, f in oracle.fields.items() if not k.startswith("GGUF.")}
        assert list(reader.metadata) == list(fields)
        for key, field in fields.items():
            assert int(reader.metadata.type_of(key)) == field.types[0]
            assert_same_value(reader.metadata[key], field)
        assert (reader.alignment, reader.data_offset) == (oracle.alignment, oracle.data_offset)
        assert len(reader.tensors) == len(oracle.tensors)
        for ours, theirs in zip(reader.tensors, oracle.tensors, strict=True):
            assert (ours.name, int(ours.type)) == (theirs.name, int(theirs.tensor_type))
            assert list(ours.shape) == theirs.shape.tolist()
            assert (ours.start, ours.n_bytes) == (theirs.data_offset, theirs.n_bytes)
            assert ours.n_elements == theirs.n_elements
            assert reader.tensor_bytes(ours) == theirs.data.tobytes()


def assert_same_value(ours: Any, field: Any) -> None:
    theirs = field.contents()
    if isinstance(ours, Array):
        assert int(ours.type) == field.types[-1]
        assert list(ours) == theirs
    else:
        assert ours == theirs or (math.isnan(ours) and math.isnan(theirs))


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("version", [2, 3])
def test_every_type(tmp_path: Path, byteorder: str, version: int) -> None:
    path = tmp_path / "m.gguf"
    assert_equal_to_oracle(
        write_every_type(path, nested=False, byteorder=byteorder, version=version, alignment=64)
    )


def test_a_vocabulary(tmp_path: Path) -> None:
    assert_equal_to_oracle(write_vocabulary(tmp_path / "m.gguf", 3000, merges=True))


@pytest.mark.parametrize("name", ["stories260K.gguf", "mmproj-tinygemma3.gguf"])
def test_real_models(name: str) -> None:
    if not (MODELS / name).exists():
        pytest.skip(f"{MODELS / name} is not there")
    assert_equal_to_oracle(MODELS / name)


def test_the_model_of_the_native_tests() -> None:
    named = os.environ.get("LLAMALITE_TEST_MODEL", "")
    if not Path(named).is_file():
        pytest.skip("LLAMALITE_TEST_MODEL names no file")
    assert_equal_to_oracle(Path(named))


@pytest.mark.parametrize("endian", [gguf.GGUFEndian.LITTLE, gguf.GGUFEndian.BIG])
def test_what_the_oracle_writes(tmp_path: Path, endian: Any) -> None:
    path = tmp_path / "theirs.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=endian)
    for key, (kind, value) in SCALARS.items():
        writer.add_key_value(key, value, gguf.GGUFValueType(kind))
    for key, (kind, values) in ARRAYS.items():
        writer.add_key_value(
            key, values, gguf.GGUFValueType.ARRAY, sub_type=gguf.GGUFValueType(kind)
        )
    order = ">" if endian == gguf.GGUFEndian.BIG else "<"
    writer.add_tensor("w", np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFReader(path) as reader:
        for key, (kind, value) in SCALARS.items():
            assert (reader.metadata.type_of(key), reader.metadata[key]) == (kind, value)
        for key, (kind, values) in ARRAYS.items():
            assert (reader.metadata[key].type, list(reader.metadata[key])) == (kind, values)
        (tensor,) = reader.tensors
        assert tensor.shape == (4, 3, 2)
        values = np.frombuffer(reader.tensor_bytes(tensor), order + "f4")
        assert values.tolist() == list(range(24))


def test_an_edited_model(tmp_path: Path) -> None:
    source = write_every_type(tmp_path / "m.gguf", nested=False)
    edited = tmp_path / "edited.gguf"
    edit_metadata(
        source, edited, {"t.uint8": 7, "general.alignment": 256, "new": [1.5]}, ["t.int8"]
    )
    assert_equal_to_oracle(edited)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(edited)
    assert len(after.tensors) == len(TENSORS)
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert old.data.tobytes() == new.data.tobytes()


def test_value_types_and_block_sizes() -> None:
    assert {t.name: int(t) for t in ValueType} == {t.name: int(t) for t in gguf.GGUFValueType}
    theirs = {int(t): size for t, size in gguf.GGML_QUANT_SIZES.items()}
    del theirs[GGMLType.Q8_1]  # 40 bytes there, 36 in ggml since 2024; no file has it
    assert {t: BLOCKS[t] for t in theirs} == theirs
    names = {int(t): t.name for t in gguf.GGMLQuantizationType}
    assert {t: GGMLType(t).name for t in names} == names
    assert set(BLOCKS) == set(GGMLType)
    assert set(GGMLType) - set(theirs) <= {GGMLType.Q8_1, GGMLType.Q2_0}  # newer than the oracle


def test_file_types() -> None:
    for kind in gguf.LlamaFileType:
        if kind.name != "GUESSED":
            assert kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") == FILE_TYPES[kind]
