from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from llamalite.errors import BadField, GGUFError
from llamalite.gguf import GGMLType, GGUFReader, GGUFWriter, Split, Typed, ValueType


def write_parts(folder: Path, n_parts: int = 3, **changes: int) -> list[Path]:
    """Write a split model with two tensors per part; `changes` are keys of the second part."""
    paths = [folder / f"big-{no + 1:05d}-of-{n_parts:05d}.gguf" for no in range(n_parts)]
    for no, path in enumerate(paths):
        keys = {"no": no, "count": n_parts, "tensors": 2 * n_parts, "name": no}
        keys.update(changes if no == 1 else {})
        with GGUFWriter(path) as writer:
            if no == 0:
                writer.add("general.architecture", "llama")
            writer.add("split.no", keys["no"], ValueType.UINT16)
            writer.add("split.count", keys["count"], ValueType.UINT16)
            writer.add("split.tensors.count", keys["tensors"], ValueType.INT32)
            for part in "qk":
                name = f"blk.{keys['name']}.attn_{part}.weight"
                writer.add_tensor(name, (4,), GGMLType.F32, bytes([no] * 16))
    return paths


def test_the_first_part_brings_all_tensors(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    with GGUFReader(paths[0]) as reader:
        assert len(reader.tensors) == 6
        assert reader.paths == tuple(map(str, paths))
        assert [tensor.path for tensor in reader.tensors[::2]] == list(map(str, paths))
        for tensor in reader.tensors:
            content = Path(tensor.path).read_bytes()[tensor.start : tensor.start + tensor.n_bytes]
            assert content == bytes([paths.index(Path(tensor.path))] * 16)
        assert reader.n_bytes == sum(path.stat().st_size for path in paths)
        summary = reader.summary
        assert summary.split == Split(0, 3, 6)
        assert summary.n_params == 24
        assert summary.layer_bytes == {0: 32, 1: 32, 2: 32}
        assert reader.tensor_bytes(reader.tensors[0]) == bytes(16)
        with pytest.raises(GGUFError, match="open that part"):
            reader.tensor_bytes(reader.tensors[-1])


def test_a_later_part_and_a_part_alone_have_their_own_tensors(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    with GGUFReader(paths[1]) as reader:
        assert [tensor.name[:5] for tensor in reader.tensors] == ["blk.1", "blk.1"]
        assert reader.summary.split == Split(1, 3, 6)
    with GGUFReader(paths[0], follow_split=False) as reader:
        assert len(reader.tensors) == 2


def test_parts_that_the_oracle_wrote(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    for i in range(5):
        writer.add_tensor(f"blk.{i}.w", np.full(8, i, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with GGUFReader(tmp_path / "m-00001-of-00003.gguf") as reader:
        assert [tensor.name for tensor in reader.tensors] == [f"blk.{i}.w" for i in range(5)]
        assert len(reader.paths) == 3


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    paths[2].unlink()
    with pytest.raises(
        GGUFError, match=r"part 3 is missing: put big-00003-of-00003\.gguf"
    ) as caught:
        GGUFReader(paths[0])
    assert caught.value.path == str(paths[0])
    assert "\n" not in str(caught.value)


def test_a_part_under_another_name_says_so(tmp_path: Path) -> None:
    renamed = write_parts(tmp_path)[0].rename(tmp_path / "model.gguf")
    with pytest.raises(GGUFError, match=r"first of 3 parts.*rename it to NAME-00001-of-00003"):
        GGUFReader(renamed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"no": 2}, "is not part 2 of 3"),
        ({"count": 4}, "is not part 2 of 3"),
        ({"name": 0}, "same tensor"),
    ],
)
def test_parts_that_do_not_belong_together(
    tmp_path: Path, changes: dict[str, int], words: str
) -> None:
    with pytest.raises(BadField, match=words):
        GGUFReader(write_parts(tmp_path, **changes)[0])


def test_a_wrong_count_of_tensors(tmp_path: Path) -> None:
    paths = write_parts(tmp_path, n_parts=2)
    with GGUFWriter(paths[1]) as writer:
        writer.add("split.no", 1)
        writer.add("split.count", 2)
    with pytest.raises(BadField, match="have 2 tensors together, not 4"):
        GGUFReader(paths[0])


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    paths = write_parts(tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:90])
    with pytest.raises(GGUFError) as caught:
        GGUFReader(paths[0])
    assert caught.value.path == str(paths[1])


@pytest.mark.parametrize(("no", "count"), [(3, 3), (-1, 3), (0, -1), ("0", 2), (True, 2)])
def test_impossible_split_keys(tmp_path: Path, no: object, count: int) -> None:
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("split.no", no)
        writer.add("split.count", count)
    with pytest.raises(BadField, match="split"):
        GGUFReader(tmp_path / "m.gguf")


def test_a_split_in_one_part_is_a_whole_model(tmp_path: Path) -> None:
    with GGUFWriter(tmp_path / "m.gguf") as writer:
        writer.add("split.no", Typed(0, ValueType.UINT16))
        writer.add("split.count", Typed(1, ValueType.UINT16))
    assert GGUFReader(tmp_path / "m.gguf").tensors == ()
