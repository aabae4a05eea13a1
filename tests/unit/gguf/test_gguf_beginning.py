"""Headers read from a file's first bytes alone: all is there, or it is said how much more is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.gguf_models import raw_array, raw_field, raw_file, write_every_type, write_vocabulary

from llamalite.errors import GGUFError, Incomplete, NotGGUF, Truncated
from llamalite.gguf import GGUFReader


def read(content: bytes, n_bytes: int, size: int | None = None) -> GGUFReader:
    return GGUFReader.from_bytes(content[:n_bytes], "m.gguf", size=size or len(content))


def outcome(content: bytes, n_bytes: int) -> GGUFReader | Incomplete:
    try:
        return read(content, n_bytes)
    except Incomplete as error:
        return error


@pytest.mark.parametrize("endian", ["little", "big"])
def test_every_beginning_says_that_more_is_needed(tmp_path: Path, endian: str) -> None:
    path = write_every_type(tmp_path / "m.gguf", byteorder=endian)
    content = path.read_bytes()
    whole = GGUFReader.from_bytes(content)
    end = whole.tensors[0].start
    complete = None
    for length in (*range(0, end - 64, 7), *range(end - 64, end + 1)):
        found = outcome(content, length)
        if isinstance(found, Incomplete):
            assert complete is None
            assert length < found.n_needed <= end
            assert f"the first {length} bytes alone are here" in str(found)
            continue
        complete = complete or length
        assert found.tensors == tuple(t._replace(path="m.gguf") for t in whole.tensors)
        assert dict(found.metadata) == dict(whole.metadata)
        assert (found.n_bytes, found.data_offset) == (len(content), whole.data_offset)
        assert found.summary == whole.summary
    assert complete is not None
    assert end - complete < 32  # no more than the padding is not needed


def test_what_is_needed_leads_to_the_end_in_few_steps(tmp_path: Path) -> None:
    content = write_vocabulary(tmp_path / "m.gguf", 5000, merges=True).read_bytes()
    have, steps = 24, 0
    while isinstance(found := outcome(content, have), Incomplete):
        have = max(found.n_needed, have + 4096)
        steps += 1
    assert steps < len(content) // 4096


def test_values_that_are_not_here_are_said_to_be(tmp_path: Path) -> None:
    content = write_every_type(tmp_path / "m.gguf").read_bytes()
    reader = read(content, GGUFReader.from_bytes(content).data_offset)
    with pytest.raises(Incomplete, match="a tensor ends at byte"):
        reader.tensor_bytes(reader.tensors[0])
    reader.close()
    with pytest.raises(GGUFError, match="was closed"):
        reader.metadata["t.string"]


def test_what_no_file_of_that_size_holds_is_damage(tmp_path: Path) -> None:
    content = write_every_type(tmp_path / "m.gguf").read_bytes()
    with pytest.raises(Truncated, match=r"tensor 'output.weight'"):
        read(content, len(content), size=len(content) - 32)
    long = raw_file([raw_field("k", 9, raw_array(8, 2**40))])
    with pytest.raises(Truncated, match="strings ends"):
        read(long, len(long), size=2**40)
    with pytest.raises(NotGGUF):
        read(b"<!doctype html>", 15, size=2**30)
    with pytest.raises(NotGGUF, match="is empty"):
        read(b"", 0)
    with pytest.raises(Incomplete):
        read(b"GG", 2, size=2**30)
