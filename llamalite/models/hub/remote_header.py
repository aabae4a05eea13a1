"""The headers of GGUF files that are not on this computer: metadata and tensor table, no values.

Owns how much is asked for at a time, and when there is enough. Doesn't know HTTP. May import
`byte_ranges`, `address`, `names`, `gguf` and `errors`.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from llamalite.errors import DownloadError, GGUFError, Incomplete
from llamalite.gguf import GGUFReader, TensorInfo
from llamalite.models.hub.address import file_url
from llamalite.models.hub.byte_ranges import RemoteFile
from llamalite.models.names.reference import shard_names

_FIRST = 96 << 10
_SMALLEST = 64 << 10
_LARGEST = 4 << 20
# PERF: a header of 1.8 % of its file, as SmolLM2-135M has, must not cost 2 %; and as all of it is
# parsed again after each read, reads must grow with it.
_PER_FILE = 1000
_PER_HEADER = 16
_MAX_HEADER = 256 << 20


class RemoteReader(GGUFReader):
    """A GGUF file elsewhere: all that its header says, without the tensors' values.

    Of a split model the parts' headers are read too, so that `tensors`, `n_bytes` and `summary`
    are the whole model's, as a GGUFReader's are.

    Attributes:
        n_read: bytes that were transferred, all parts together.
        n_requests: questions that were asked; one that is redirected counts once.
    """

    n_read = 0
    n_requests = 0

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
    parts = shard_names(file)
    return _read([RemoteFile(file_url(repo, part, revision), f"{repo}/{part}") for part in parts])


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
    first = _read_one(files[0])
    split = first.split
    if split is not None and split.n_parts > 1:
        if (split.no, split.n_parts) != (0, len(files)):
            raise GGUFError(
                f"says that it is part {split.no + 1} of {split.n_parts}, and its name says 1 of "
                f"{len(files)}: the others can't be found",
                path=first.path,
            )
        first.join(map(_read_one, files[1:]))
    first.n_read = sum(file.n_read for file in files)
    first.n_requests = sum(file.n_requests for file in files)
    return first


def _read_one(file: RemoteFile) -> RemoteReader:
    head = file.read(0, _FIRST)
    while True:
        try:
            return RemoteReader.from_bytes(head, file.name, size=file.n_bytes)
        except Incomplete as error:
            missing = error.n_needed - len(head)
        if len(head) + missing > _MAX_HEADER:
            raise DownloadError(
                f"{file.name} has a header of more than {_MAX_HEADER >> 20} MiB: download it to "
                f"look at it"
            )
        chunk = max(file.n_bytes // _PER_FILE, len(head) // _PER_HEADER, _SMALLEST)
        head += file.read(len(head), max(min(chunk, _LARGEST), missing))
