"""Writes GGUF files: models for tests, and copies with other metadata.

Owns the layout of a file as it is written; how a value becomes bytes is `llamalite.gguf.encode`'s.
Imports the standard library, `llamalite.errors` and its own package.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from llamalite.errors import BadField, GGUFError
from llamalite.gguf.arrays import Array
from llamalite.gguf.constants import (
    BLOCKS,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_KEY_BYTES,
    MAX_TENSOR_NAME_BYTES,
    VERSIONS,
    ValueType,
    tensor_n_bytes,
)
from llamalite.gguf.encode import encode_value
from llamalite.gguf.reader import GGUFReader
from llamalite.gguf.source import fixed_struct

if TYPE_CHECKING:
    from types import TracebackType

    from llamalite.gguf.source import ByteOrder

_COPY_BYTES = 4 << 20
_ALIGNMENT_KEY = "general.alignment"


class _FileRange(NamedTuple):
    path: str
    start: int
    n_bytes: int


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    type: int
    n_bytes: int
    content: memoryview | _FileRange


class GGUFWriter:
    """Collects metadata and tensors and writes them as one file.

    As a context manager it writes when the block ends without an exception. The file appears under
    its name only when it is complete.

    Args:
        path: where to write; a file there is replaced.
        byteorder: of the numbers in the header; tensor values are written as they are given.
        version: 2 or 3.
        alignment: a power of two; written as `general.alignment` where given.

    Raises:
        BadField: a value, key, tensor or argument that the format doesn't allow.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        byteorder: ByteOrder = "little",
        version: int = VERSIONS[-1],
        alignment: int | None = None,
    ) -> None:
        self.path = os.fsdecode(path)
        self.byteorder = byteorder
        self.version = version
        self.alignment = DEFAULT_ALIGNMENT
        self._fields: dict[str, bytes] = {}
        self._tensors: dict[str, _Tensor] = {}
        if byteorder not in ("little", "big") or version not in VERSIONS:
            raise self._bad(f"can't be written as version {version}, {byteorder} endian")
        if alignment is not None:
            self.add(_ALIGNMENT_KEY, alignment)

    def add(self, key: str, value: Any, type: ValueType | None = None) -> None:
        """Add a metadata value.

        Args:
            key: at most 65535 bytes, not there yet.
            value: bool, int, float, str, bytes, a sequence of those (which may nest), or Typed.
            type: the value's type, for a sequence its elements' type; None chooses: ints become
                UINT32 (in a sequence INT32) or the next type that holds them, floats FLOAT32.
        """
        if key == _ALIGNMENT_KEY:
            if not isinstance(value, int) or not 0 < value < 2**32 or value & (value - 1):
                raise self._bad(f"{key} is {value!r}, no power of two below 2³²")
            type = ValueType.UINT32
        try:
            kind, payload = encode_value(value, type, self.byteorder)
        except (ValueError, RecursionError) as error:
            raise self._bad(f"the value of {key!r} can't be written: {error}") from None
        self.add_raw(key, kind, payload)
        if key == _ALIGNMENT_KEY:
            self.alignment = value

    def add_raw(self, key: str, type: ValueType, payload: bytes) -> None:
        """Add a metadata value that is encoded already, in this writer's byte order."""
        if key in self._fields:
            raise self._bad(f"the key {key!r} was added already")
        name = self._name(key, MAX_KEY_BYTES)
        if not key:
            raise self._bad("a key is empty")
        self._fields[key] = name + fixed_struct(self.byteorder, "I").pack(type) + payload

    def add_tensor(self, name: str, shape: Sequence[int], type: int, data: Any) -> None:
        """Add a tensor.

        Args:
            name: at most 64 bytes, not there yet.
            shape: elements per dimension in ggml's order, ne0 (the contiguous one) first.
            type: a GGMLType.
            data: its values as they shall lie in the file: bytes, or any buffer such as a numpy
                array. It is read in `write`, so it must not change until then.
        """
        try:
            view = memoryview(data)
            view = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(bytes(view))
        except (TypeError, ValueError, BufferError) as error:
            raise self._bad(f"tensor {name!r} has no bytes to write ({error})") from None
        self._add_tensor(name, shape, type, view, view.nbytes)

    def _add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        type: int,
        content: memoryview | _FileRange,
        n_given: int,
    ) -> None:
        if name in self._tensors:
            raise self._bad(f"the tensor {name!r} was added already")
        if type not in BLOCKS:
            raise self._bad(f"tensor {name!r} has the unknown type {type!r}")
        self._name(name, MAX_TENSOR_NAME_BYTES)
        sizes = tuple(int(dim) for dim in shape)
        try:
            n_bytes = tensor_n_bytes(sizes, type)
        except ValueError as error:
            raise self._bad(f"tensor {name!r} {error}") from None
        if n_bytes != n_given:
            raise self._bad(f"tensor {name!r} needs {n_bytes} bytes and {n_given} were given")
        self._tensors[name] = _Tensor(name, sizes, type, n_bytes, content)

    def write(self) -> None:
        """Write the file under a temporary name beside it, then rename it into place.

        Raises:
            GGUFError: it can't be written; what was there before is unchanged.
        """
        try:
            with _replaced(self.path) as file:
                file.write(self._header())
                _pad(file, self.alignment)
                for tensor in self._tensors.values():
                    _write_content(file, tensor.content)
                    _pad(file, self.alignment)
        except OSError as error:
            reason = error.strerror or str(error)
            raise GGUFError(
                f"can't be written ({reason}): check the folder, its permissions and free space",
                path=self.path,
            ) from None

    def _header(self) -> bytes:
        counts = fixed_struct(self.byteorder, "IQQ")
        parts = [MAGIC, counts.pack(self.version, len(self._tensors), len(self._fields))]
        parts += self._fields.values()
        offset = 0
        for tensor in self._tensors.values():
            n_dims = len(tensor.shape)
            parts.append(self._name(tensor.name, MAX_TENSOR_NAME_BYTES))
            layout = fixed_struct(self.byteorder, "I" + "Q" * n_dims + "IQ")
            parts.append(layout.pack(n_dims, *tensor.shape, tensor.type, offset))
            offset += tensor.n_bytes + -tensor.n_bytes % self.alignment
        return b"".join(parts)

    def _name(self, name: str, limit: int) -> bytes:
        try:
            encoded = name.encode("utf-8")
        except UnicodeEncodeError:
            raise self._bad(f"the name {name!r} can't be written as UTF-8") from None
        if len(encoded) > limit:
            raise self._bad(f"a name has {len(encoded)} bytes, more than {limit}")
        return fixed_struct(self.byteorder, "Q").pack(len(encoded)) + encoded

    def _bad(self, message: str) -> BadField:
        return BadField(message, path=self.path)

    def __enter__(self) -> GGUFWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.write()


def edit_metadata(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    set: Mapping[str, Any] | None = None,
    remove: Iterable[str] = (),
) -> None:
    """Copy a GGUF file with other metadata; the tensors' values are copied unchanged.

    A part of a split model is copied alone.

    Args:
        src: the file to read.
        dst: the file to write; may be the same.
        set: key → value. A key that is there keeps its place and its type (an array its elements'
            type) unless the value is Typed; new keys come last, typed as `GGUFWriter.add` does.
        remove: keys to leave out.

    Raises:
        GGUFError: `src` is malformed, a key to remove isn't there, or a value doesn't fit.
    """
    changes, dropped = dict(set or {}), frozenset(remove)
    with GGUFReader(src, follow_split=False) as reader:
        metadata = reader.metadata
        for key in dropped:
            if key not in metadata:
                raise BadField(f"has no key {key!r} to remove", path=reader.path)
        writer = GGUFWriter(dst, byteorder=reader.byteorder, version=reader.version)
        for key in metadata:
            if key in changes and key not in dropped:
                writer.add(key, changes.pop(key), _kept_type(reader, key))
            elif key not in dropped:
                writer.add_raw(key, metadata.type_of(key), metadata.raw(key))
        for key, value in changes.items():
            writer.add(key, value)
        if _ALIGNMENT_KEY not in dropped and _ALIGNMENT_KEY not in (set or {}):
            writer.alignment = reader.alignment
        for name, shape, kind, _, n_bytes, path, start in reader.tensors:
            content = _FileRange(path, start, n_bytes)
            writer._add_tensor(name, shape, kind, content, n_bytes)
    writer.write()  # the source is unmapped by now: Windows replaces no file that is mapped


def _kept_type(reader: GGUFReader, key: str) -> ValueType:
    value = reader.metadata[key]
    return value.type if isinstance(value, Array) else reader.metadata.type_of(key)


@contextmanager
def _replaced(path: str) -> Iterator[BinaryIO]:
    """Open a new file that gets the name `path` when all went well and vanishes when not."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def _pad(file: BinaryIO, alignment: int) -> None:
    missing = -file.tell() % alignment
    while missing:
        missing -= file.write(bytes(min(missing, _COPY_BYTES)))


def _write_content(file: BinaryIO, content: memoryview | _FileRange) -> None:
    if isinstance(content, memoryview):
        file.write(content)
        return
    with open(content.path, "rb") as source:
        source.seek(content.start)
        left = content.n_bytes
        while left:
            chunk = source.read(min(left, _COPY_BYTES))
            if not chunk:
                raise OSError(f"{content.path} became shorter while it was copied")
            left -= file.write(chunk)
