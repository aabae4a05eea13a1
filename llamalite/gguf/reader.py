"""The GGUF reader: a file's metadata and tensor table.

Owns the reader's lifetime, the tensors' places and sizes, and the parts of a split model. Knows no
model: what the keys mean is `llamalite.gguf.view`'s. Imports the standard library,
`llamalite.errors` and its own package.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from llamalite.errors import GGUFError
from llamalite.gguf.constants import BLOCKS, GGMLType, ValueType, tensor_n_bytes
from llamalite.gguf.header import (
    Field,
    read_alignment,
    read_fields,
    read_tensor_rows,
    read_version,
    unknown_type,
)
from llamalite.gguf.source import Source

if TYPE_CHECKING:
    from types import TracebackType

    from llamalite.gguf.arrays import Array
    from llamalite.gguf.source import ByteOrder
    from llamalite.gguf.split import Split
    from llamalite.gguf.view import ModelSummary

    Value = str | int | float | bool | Array[Any]

Reader = TypeVar("Reader", bound="GGUFReader")


class TensorInfo(NamedTuple):
    """One line of the tensor table.

    Attributes:
        shape: elements per dimension in ggml's order: ne0, the contiguous one, comes first (the
            reverse of numpy's).
        offset: where the values start, in bytes from the `data_offset` of the file they are in.
        n_bytes: bytes the values take, without padding.
        path: the file they are in: one of the parts of a split model.
        start: where they start, in bytes from that file's beginning.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int
    n_bytes: int
    path: str
    start: int

    @property
    def n_elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)


class Metadata(Mapping[str, Any]):
    """Keys and values in file order; arrays are sequences, read on access."""

    def __init__(self, source: Source, fields: dict[str, Field]) -> None:
        self._source = source
        self._fields = fields

    def __getitem__(self, key: str) -> Value:
        field = self._fields[key]
        if field.type is ValueType.STRING:
            return self._source.text(field.start + 8, field.stop)
        return field.value  # type: ignore[no-any-return]

    def __contains__(self, key: object) -> bool:
        return key in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"<Metadata of {len(self)} keys>"

    def type_of(self, key: str) -> ValueType:
        """Return the type a value has in the file; KeyError for an unknown key."""
        return self._fields[key].type

    def raw(self, key: str) -> bytes:
        """Return a value's bytes as they lie in the file; KeyError for an unknown key."""
        field = self._fields[key]
        return self._source.read(field.start, field.stop)


class GGUFReader:
    """A GGUF file, open: metadata and tensor table, with the tensors' values left on disk.

    The first part of a split model (`…-00001-of-0000N.gguf`) opens its siblings too, so that
    `tensors` has all of them; `metadata` is the first part's. Not safe to close while another
    thread reads.

    Attributes:
        path: the file as it was given; "" for bytes in memory.
        version: 2 or 3.
        byteorder: "little" or "big".
        alignment: bytes that tensor offsets are multiples of.
        data_offset: where the tensors' values begin in this file.
        metadata: a mapping of keys to values.
        tensors: a tuple of TensorInfo, in file order, part after part.
        paths: the files of a split model in order, or this one alone.
        n_bytes: bytes in all those files.

    Raises:
        GGUFError: the file can't be opened or is malformed; `path` and `offset` say where.
    """

    def __init__(self, path: str | os.PathLike[str], *, follow_split: bool = True) -> None:
        self._load(Source.open(path))
        if follow_split:
            try:
                self._add_siblings()
            except BaseException:
                self.close()
                raise

    @classmethod
    def from_bytes(
        cls: type[Reader],
        content: bytes | bytearray | memoryview,
        path: str = "",
        *,
        size: int | None = None,
    ) -> Reader:
        """Read a file that is already in memory; a split model's siblings are not looked for.

        Args:
            content: the file's bytes, or the first of them: at least those of the header.
            path: a name for error messages.
            size: bytes of the whole file; None = that is all of it.

        Raises:
            Incomplete: the header goes on behind these bytes; `n_needed` says how far at least.
            GGUFError: the file is malformed.
        """
        reader = cls.__new__(cls)
        reader._load(Source(bytes(content), path, size=size))
        return reader

    def _load(self, source: Source) -> None:
        self._source = source
        self.path = source.path
        try:
            self._read()
        except BaseException:
            source.close()
            raise

    def _read(self) -> None:
        source = self._source
        self.version = read_version(source)
        self.byteorder: ByteOrder = source.byteorder
        n_tensors, n_fields = source.u64(8), source.u64(16)
        fields, pos = read_fields(source, n_fields)
        self.metadata = Metadata(source, fields)
        self.alignment = read_alignment(source, fields)
        rows, pos = read_tensor_rows(source, pos, n_tensors)
        self.data_offset = pos + -pos % self.alignment
        self.tensors = tuple(self._tensor(*row) for row in rows)
        self.paths: tuple[str, ...] = (self.path,)
        self.n_bytes = source.size

    def _tensor(
        self, pos: int, name: str, shape: tuple[int, ...], number: int, offset: int
    ) -> TensorInfo:
        source = self._source
        if number not in BLOCKS:
            raise source.bad(pos, f"tensor {name!r} {unknown_type(number)}")
        try:
            n_bytes = tensor_n_bytes(shape, number)
        except ValueError as error:
            raise source.bad(pos, f"tensor {name!r} {error}") from None
        if offset % self.alignment:
            raise source.bad(
                pos, f"tensor {name!r} has the offset {offset}, no multiple of {self.alignment}"
            )
        start = self.data_offset + offset
        if start + n_bytes > source.size and n_bytes:
            raise source.truncated(pos, f"tensor {name!r}, {n_bytes} bytes from {start} on,")
        return TensorInfo(name, shape, GGMLType(number), offset, n_bytes, self.path, start)

    def _add_siblings(self) -> None:
        from llamalite.gguf.split import sibling_paths

        split = self.split
        if split is None or split.no != 0 or split.n_parts < 2:
            return

        def parts() -> Iterator[GGUFReader]:
            for path in sibling_paths(self.path, split):
                with GGUFReader(path, follow_split=False) as part:
                    yield part

        self.join(parts())

    @property
    def split(self) -> Split | None:
        """Which part of a split model this file is, or None; raises BadField as `split_of` does."""
        # Split models carry the key in every part, whole models only now and then, as 0 or 1.
        from llamalite.gguf.split import split_of

        return split_of(self.metadata, self.path)

    def join(self, parts: Iterable[GGUFReader]) -> None:
        """Take the tensors of a split model's other parts into this, the first.

        Args:
            parts: all others, in order; each is read from only until the next is asked for.

        Raises:
            GGUFError: they are not the parts of one model.
        """
        split = self.split
        n_parts = split.n_parts if split is not None else 1
        tensors, paths, n_bytes = list(self.tensors), [self.path], self.n_bytes
        for number, part in enumerate(parts, 1):
            found = part.split
            if found is None or (found.no, found.n_parts) != (number, n_parts):
                raise part._source.bad(
                    None, f"is not part {number + 1} of {n_parts}, as its name says"
                )
            tensors += part.tensors
            paths.append(part.path)
            n_bytes += part.n_bytes
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise self._source.bad(None, "two parts of this split model have the same tensor")
        n_tensors = split.n_tensors if split is not None else None
        if n_tensors is not None and n_tensors != len(tensors):
            raise self._source.bad(
                None, f"its parts have {len(tensors)} tensors together, not {n_tensors}"
            )
        self.tensors, self.paths, self.n_bytes = tuple(tensors), tuple(paths), n_bytes

    @cached_property
    def summary(self) -> ModelSummary:
        """What the metadata says about the model, typed; the same as `view.describe(self)`."""
        from llamalite.gguf.view import describe

        return describe(self)

    def tensor_bytes(self, tensor: TensorInfo) -> memoryview:
        """Return a tensor's values as they lie in the file, uncopied.

        Raises:
            GGUFError: the reader was closed, the tensor lies in another part of a split model, or
                its values are not in the bytes that the reader was made of.
        """
        if tensor.path != self.path:
            raise GGUFError(
                f"tensor {tensor.name!r} is not here but in {tensor.path}: open that part",
                path=self.path,
            )
        return self._source.view(tensor.start, tensor.start + tensor.n_bytes)

    def close(self) -> None:
        """Unmap the file; arrays and strings can't be read any more. Idempotent."""
        self._source.close()

    def __enter__(self) -> GGUFReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GGUFReader {self.path!r}: {len(self.metadata)} keys, {len(self.tensors)} tensors>"
