"""The headers of GGUF files that are not on this computer: metadata and tensor table, no values.

Owns how much is asked for at a time, and when there is enough. Doesn't know HTTP. May import
`byte_ranges`, `hub`, `reference`, `gguf` and `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from llamalite.errors import DownloadError, GGUFError, Truncated
from llamalite.gguf import GGUFReader, Split, TensorInfo
from llamalite.gguf.source import Source
from llamalite.gguf.split import split_of
from llamalite.models.hub import access as hub
from llamalite.models.hub.byte_ranges import RemoteFile
from llamalite.models.names.reference import shard_names

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIRST = 96 << 10
_SMALLEST = 64 << 10
_LARGEST = 4 << 20
# PERF: a header of 1.8 % of its file, as SmolLM2-135M has, must not cost 2 %.
_PER_FILE = 1000
_MAX_HEADER = 256 << 20
# Nothing that the reader takes in one piece, a key being the largest, reaches further.
_REACH = 70_000


class RemoteReader(GGUFReader):
    """A GGUF file elsewhere: all that its header says, without the tensors' values.

    Of a split model the parts' headers are read too, so that `tensors`, `n_bytes` and `summary`
    are the whole model's, as a GGUFReader's are.

    Attributes:
        n_read: bytes that were transferred, all parts together.
        n_requests: HTTP requests that were made, redirects too.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._read_header(file)
        self.n_read, self.n_requests = file.n_read, file.n_requests

    def _read_header(self, file: RemoteFile) -> None:
        head = file.read(0, _FIRST)
        while True:
            source = Source(head, file.name)
            source.size = file.n_bytes
            try:
                self._load(source)
                if min(self.data_offset, file.n_bytes) <= len(head):
                    return
            except Truncated as err:
                # Far from the end of what is here, it is the file that is at fault.
                if len(head) >= file.n_bytes or (err.offset or 0) + _REACH < len(head):
                    raise
            if len(head) >= _MAX_HEADER:
                raise DownloadError(
                    f"{file.name} has a header of more than {_MAX_HEADER >> 20} MiB: download it "
                    f"to look at it"
                )
            chunk = min(max(file.n_bytes // _PER_FILE, _SMALLEST), _LARGEST)
            head += file.read(len(head), chunk)

    def _add_parts(self, parts: Iterator[RemoteFile], split: Split) -> None:
        tensors, paths = list(self.tensors), [self.path]
        for number, file in enumerate(parts, 1):
            part = RemoteReader(file)
            found = split_of(part.metadata, file.name)
            if found is None or (found.no, found.n_parts) != (number, split.n_parts):
                raise GGUFError(
                    f"is not part {number + 1} of {split.n_parts}, as its name says",
                    path=file.name,
                )
            tensors += part.tensors
            paths.append(part.path)
            self.n_bytes += part.n_bytes
            self.n_read += part.n_read
            self.n_requests += part.n_requests
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise GGUFError("two parts of this split model have the same tensor", path=self.path)
        if split.n_tensors is not None and split.n_tensors != len(tensors):
            raise GGUFError(
                f"its parts have {len(tensors)} tensors together, not {split.n_tensors}",
                path=self.path,
            )
        self.tensors, self.paths = tuple(tensors), tuple(paths)

    def tensor_bytes(self, tensor: TensorInfo) -> memoryview:
        """Raise GGUFError: the values are not on this computer."""
        raise GGUFError(
            f"tensor {tensor.name!r} is not on this computer: download the model first",
            path=tensor.path,
        )


def read_hub_header(repo: str, file: str, revision: str = "main") -> RemoteReader:
    """Read the header of a file on the Hub; of a split model, given any part, those of all.

    Raises:
        GGUFError: it is no GGUF file, or malformed.
        Offline: network use is switched off.
        DownloadError: the Hub or its storage can't be reached, refused, or can't send parts.
    """
    base = f"{hub.endpoint()}/{repo}/resolve/{quote(revision, safe='')}"
    parts = shard_names(file)
    return _read([RemoteFile(f"{base}/{quote(part)}", f"{repo}/{part}") for part in parts])


def read_url_header(url: str) -> RemoteReader:
    """Read the header of a file on any web server; of a split model, given any part, those of all.

    Raises:
        GGUFError: it is no GGUF file, or malformed.
        Offline: network use is switched off.
        DownloadError: the server can't be reached, refused, or can't send parts.
    """
    parts = urlsplit(url)
    paths = shard_names(parts.path)
    return _read([RemoteFile(urlunsplit(parts._replace(path=path))) for path in paths])


def _read(files: list[RemoteFile]) -> RemoteReader:
    reader = RemoteReader(files[0])
    split = split_of(reader.metadata, reader.path)
    if split is None or split.n_parts < 2:
        return reader
    if (split.no, split.n_parts) != (0, len(files)):
        raise GGUFError(
            f"says that it is part {split.no + 1} of {split.n_parts}, and its name says 1 of "
            f"{len(files)}: the others can't be found",
            path=reader.path,
        )
    reader._add_parts(iter(files[1:]), split)
    return reader
