"""Split models: which part a file is, and what its siblings are called.

Owns the `split.*` keys and the `-00001-of-00003.gguf` names. Imports the standard library,
`llamalite.errors` and `llamalite.gguf`'s constants.
Source: llama.h `llama_split_path`; llama.cpp's gguf-split.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from llamalite.errors import BadField, GGUFError

_PART_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL | re.ASCII)


class Split(NamedTuple):
    """Which part of a split model a file is.

    Attributes:
        no: 0 for the first part.
        n_parts: parts in all.
        n_tensors: tensors in all parts together, or None where the file doesn't say.
    """

    no: int
    n_parts: int
    n_tensors: int | None


def split_of(metadata: Mapping[str, Any], path: str = "") -> Split | None:
    """Return what the split keys say, or None for a model in one file.

    Raises:
        BadField: a key is no whole number, or the part's number is not below the count.
    """
    numbers: dict[str, int | None] = {}
    for key in ("split.no", "split.count", "split.tensors.count"):
        value = metadata.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise BadField(f"{key} is no whole number", path=path)
        numbers[key] = value
    no, count, n_tensors = numbers.values()
    if not count:
        return None
    if count < 0 or not 0 <= (no or 0) < count:
        raise BadField(f"split.no is {no} and split.count {count}", path=path)
    return Split(no or 0, count, n_tensors)


def part_path(prefix: str, no: int, count: int) -> str:
    """Return a part's file name; `no` is 0 for the first."""
    return f"{prefix}-{no + 1:05d}-of-{count:05d}.gguf"


def sibling_paths(path: str, split: Split) -> Iterator[str]:
    """Yield the paths of the parts after the first.

    Raises:
        GGUFError: the first part's name doesn't follow the pattern, or a sibling is missing.
    """
    match = _PART_NAME.fullmatch(path)
    if match is None or (int(match[2]), int(match[3])) != (1, split.n_parts):
        name = part_path("NAME", 0, split.n_parts)
        raise GGUFError(
            f"is the first of {split.n_parts} parts, and the others are found by its name only: "
            f"rename it to {name}",
            path=path,
        )
    for number in range(1, split.n_parts):
        sibling = part_path(match[1], number, split.n_parts)
        if not os.path.exists(sibling):
            raise GGUFError(
                f"is part 1 of {split.n_parts}, and part {number + 1} is missing: put "
                f"{os.path.basename(sibling)} beside it",
                path=path,
            )
        yield sibling
