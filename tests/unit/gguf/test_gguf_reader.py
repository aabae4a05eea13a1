from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.gguf_models import (
    ARRAYS,
    LONG,
    NESTED,
    SCALARS,
    TENSORS,
    pattern,
    raw_array,
    raw_field,
    raw_file,
    raw_string,
    write_every_type,
)

from llamalite.errors import GGUFError, NotGGUF
from llamalite.gguf import GGMLType, GGUFReader, ValueType


@pytest.fixture(
    params=[("little", 3), ("big", 3), ("little", 2), ("big", 2)],
    ids=lambda how: f"{how[0]}-v{how[1]}",
)
def every_type(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    byteorder, version = request.param
    return write_every_type(tmp_path / "m.gguf", byteorder=byteorder, version=version)


def test_every_value_type_reads_back(every_type: Path) -> None:
    with GGUFReader(every_type) as reader:
        for key, (kind, value) in SCALARS.items():
            assert reader.metadata[key] == value
            assert type(reader.metadata[key]) is type(value)
            assert reader.metadata.type_of(key) is kind
        for key, (kind, values) in ARRAYS.items():
            assert reader.metadata.type_of(key) is ValueType.ARRAY
            assert reader.metadata[key].type is kind
            assert list(reader.metadata[key]) == values
            assert list(map(type, reader.metadata[key])) == list(map(type, values))


def test_nested_arrays_read_back(every_type: Path) -> None:
    with GGUFReader(every_type) as reader:
        for key, values in NESTED.items():
            assert reader.metadata[key] == values
        texts = reader.metadata["n.text"]
        assert texts[-1] == ["c"]
        assert texts[65][0] == "c"
        assert [len(inner) for inner in reader.metadata["n.empty"]] == [0, 0]
        assert [inner.type.name for inner in reader.metadata["n.empty"]] == ["UINT8", "STRING"]


def test_byte_order_and_version_are_found(tmp_path: Path) -> None:
    path = write_every_type(tmp_path / "m.gguf", byteorder="big", version=2)
    with GGUFReader(path) as reader:
        assert (reader.byteorder, reader.version, reader.alignment) == ("big", 2, 32)
        assert reader.path == str(path)
        assert reader.data_offset % 32 == 0


def test_tensor_table_and_values(every_type: Path) -> None:
    with GGUFReader(every_type) as reader:
        assert len(reader.tensors) == len(TENSORS)
        for tensor, (name, shape, kind, n_bytes) in zip(reader.tensors, TENSORS, strict=True):
            assert tensor[:3] == (name, shape, kind)
            assert isinstance(tensor.type, GGMLType)
            assert tensor.n_bytes == n_bytes
            assert tensor.start == reader.data_offset + tensor.offset
            assert tensor.offset % reader.alignment == 0
            assert bytes(reader.tensor_bytes(tensor)) == pattern(name, n_bytes)
        with pytest.raises(AttributeError):
            reader.tensors[0].name = "x"  # type: ignore[misc]


@pytest.mark.parametrize("key", ["a.string", "a.int16", "a.bool", "n.text"])
def test_arrays_behave_like_lists(tmp_path: Path, key: str) -> None:
    expected = {**{k: v for k, (_, v) in ARRAYS.items()}, **NESTED}[key]
    n = len(expected)
    with GGUFReader(write_every_type(tmp_path / "m.gguf")) as reader:
        array = reader.metadata[key]
        assert len(array) == n
        assert [array[i] for i in range(n)] == expected
        assert [array[i - n] for i in range(n)] == expected
        for cut in (
            slice(1, 3),
            slice(-2, None),
            slice(None, None, -1),
            slice(0, n, 7),
            slice(5, 1),
        ):
            assert isinstance(array[cut], list)
            assert array[cut] == expected[cut]
        assert expected[-1] in array
        assert array != expected[:-1]
        assert array != [*expected[:-1], "?"]
        for index in (n, -n - 1, 10**30):
            with pytest.raises(IndexError, match=f"of an array of {n} elements"):
                array[index]


def test_lengths_of_256_bytes_and_more_are_walked_over() -> None:
    texts = [b"x" * n for n in (255, 256, 257, 65535, 65536, 0, 1, 256, 3)] * 17
    payload = raw_array(8, len(texts), b"".join(map(raw_string, texts)))
    content = raw_file([raw_field("a", 9, payload), raw_field("after", 0, b"\7")])
    reader = GGUFReader.from_bytes(content)
    assert [len(text) for text in reader.metadata["a"]] == [len(text) for text in texts]
    assert reader.metadata["after"] == 7


def test_a_long_string_that_looks_like_short_ones_is_not_split() -> None:
    # 259 = 0x0103: the low byte alone says 3, and after three bytes short strings seem to follow.
    long = (b"abc" + raw_string("k" * 5) * 19).ljust(259, b"y")
    assert len(long) == 259
    texts = [b"k" * 5, long, b"k" * 5, b"end"]
    payload = raw_array(8, 4, b"".join(map(raw_string, texts)))
    reader = GGUFReader.from_bytes(raw_file([raw_field("a", 9, payload)]))
    assert [text.encode() for text in reader.metadata["a"]] == texts


def test_bytes_that_are_no_utf8_survive_as_surrogates() -> None:
    payload = raw_array(8, 2, raw_string(b"\xff\xfe") + raw_string("ok"))
    content = raw_file([raw_field("a", 9, payload), raw_field("s", 8, raw_string(b"a\x80"))])
    reader = GGUFReader.from_bytes(content)
    assert reader.metadata["a"][0] == "\udcff\udcfe"
    assert reader.metadata["s"].encode("utf-8", "surrogateescape") == b"a\x80"


def test_metadata_is_a_mapping_in_file_order(tmp_path: Path) -> None:
    with GGUFReader(write_every_type(tmp_path / "m.gguf")) as reader:
        keys = list(reader.metadata)
        assert keys[:3] == ["general.architecture", "t.uint8", "t.int8"]
        assert len(reader.metadata) == len(keys) == len(dict(reader.metadata))
        assert "t.uint8" in reader.metadata
        assert reader.metadata.get("none") is None
        with pytest.raises(KeyError):
            reader.metadata["none"]


def test_reading_after_close_is_a_gguf_error(tmp_path: Path) -> None:
    with GGUFReader(write_every_type(tmp_path / "m.gguf")) as reader:
        texts, numbers, nested = (reader.metadata[k] for k in ("a.string", "a.int16", "n.text"))
    reader.close()
    assert reader.metadata["t.uint8"] == 255  # numbers were read when the file was opened
    for read in (
        lambda: texts[70],
        lambda: list(numbers),
        lambda: nested[0],
        lambda: reader.metadata["t.string"],
        lambda: reader.tensor_bytes(reader.tensors[0]),
    ):
        with pytest.raises(GGUFError, match="was closed"):
            read()


def test_a_tensor_view_outlives_the_reader(tmp_path: Path) -> None:
    with GGUFReader(write_every_type(tmp_path / "m.gguf")) as reader:
        view = reader.tensor_bytes(reader.tensors[0])
    del reader
    gc.collect()
    assert bytes(view) == pattern(TENSORS[0][0], TENSORS[0][3])


def test_the_file_is_unmapped_on_close_and_on_error(tmp_path: Path) -> None:
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc to see mappings")
    good, bad = write_every_type(tmp_path / "good.gguf"), tmp_path / "bad.gguf"
    bad.write_bytes(good.read_bytes()[:500])
    GGUFReader(good).close()
    with pytest.raises(GGUFError) as caught:
        GGUFReader(bad)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert caught.value.path == str(bad)


def test_what_is_no_file_gives_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe") if hasattr(os, "mkfifo") else (tmp_path / "pipe").mkdir()
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "text.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    for name, kind, words in (
        ("missing.gguf", GGUFError, "No such file"),
        ("", GGUFError, "a folder"),
        ("pipe", GGUFError, "no regular file"),
        ("nul\0", GGUFError, "null"),
        ("empty.gguf", NotGGUF, "is empty"),
        ("text.gguf", NotGGUF, "starts with b'vers'"),
    ):
        with pytest.raises(kind, match=words) as caught:
            GGUFReader(f"{tmp_path}/{name}")
        assert "\n" not in str(caught.value)


def test_long_strings_are_no_problem_for_repr(tmp_path: Path) -> None:
    with GGUFReader(write_every_type(tmp_path / "m.gguf")) as reader:
        assert LONG not in repr(reader) + repr(reader.metadata) + repr(reader.metadata["a.string"])


def test_import_loads_no_numpy() -> None:
    code = "import sys, llamalite.gguf; sys.exit('numpy' in sys.modules or 'ctypes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
