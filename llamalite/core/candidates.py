"""Candidates: which tokens of a row of logits a sampler gets to see.

Owns llama_token_data arrays and the search for the largest logits. Doesn't know what samplers do
with them. Imports numpy, `ffi` and `llamalite.errors`.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from llamalite.errors import FatalDecode
from llamalite.ffi.structs import TokenDataArray

CANDIDATE = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
"""llama_token_data."""

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

_N_ROWS = 32
_LOWEST = np.finfo(np.float32).min
_FIRST_GUESS = 256
_scratch = threading.local()


def array_of(candidates: npt.NDArray[Any]) -> TokenDataArray:
    """Return the llama_token_data_array around CANDIDATE[n]; nothing is selected in it."""
    return TokenDataArray(candidates.ctypes.data, len(candidates), -1, False)


def candidates_of(logits: Logits, ids: Ids | None = None) -> npt.NDArray[Any]:
    """Return CANDIDATE[n] of these tokens, or of all; valid until the next call in this thread."""
    count = len(logits) if ids is None else len(ids)
    candidates = room_for(count)
    candidates["id"] = np.arange(count, dtype=np.int32) if ids is None else ids
    candidates["logit"] = logits if ids is None else logits[ids]
    return candidates


def room_for(count: int) -> npt.NDArray[Any]:
    """Return CANDIDATE[count] with anything in it; valid until the next call in this thread."""
    # PERF: fresh memory of this size costs more to map than to fill.
    room: npt.NDArray[Any] | None = getattr(_scratch, "room", None)
    if room is None or len(room) < count:
        room = _scratch.room = np.zeros(count, CANDIDATE)
    return room[:count]


def peak(logits: Logits) -> float:
    """Return the largest logit; -inf where all are.

    Raises:
        FatalDecode: one is NaN or +inf.
    """
    most = float(logits.max())
    if not most < math.inf:
        raise FatalDecode(
            "what the model computes is not numbers: its file may be damaged, or this build of "
            "libllama wrong for this machine (see 'llamalite doctor')"
        )
    return most


def possible(logits: Logits) -> Ids | None:
    """Return the ids whose logits aren't -inf, ascending, or None if that's all of them."""
    return np.flatnonzero(logits >= _LOWEST) if logits.min() < _LOWEST else None


def nucleus(logits: Logits, p: float, min_keep: int) -> Ids:
    """Return the ids of the likeliest that together have probability p, the likeliest first.

    Args:
        logits: float32[n_vocab] without NaN, one of them above -inf.
        p: 0 to 1.
        min_keep: leave at least so many.
    """
    total = float(np.exp(logits - logits.max()).sum(dtype=np.float64))
    # PERF: most nuclei are small, and sorting a whole vocabulary takes milliseconds.
    count = _FIRST_GUESS
    while True:
        count = min(max(count, min_keep), len(logits))
        ids = largest(logits, count)
        shares = np.exp(logits[ids] - logits[ids[0]]).cumsum(dtype=np.float64) / total
        n_kept = max(int(np.searchsorted(shares, p)) + 1, min_keep)
        if n_kept <= len(ids) or len(ids) < count or count == len(logits):
            return ids[:n_kept]
        count *= 8


def largest(logits: Logits, k: int) -> Ids:
    """Return the ids of the k largest logits, largest first, the lower id first among equals.

    Fewer where the others are -inf.

    Args:
        logits: float32[n_vocab] without NaN.
        k: 1 to n_vocab.
    """
    ids = _with_largest(logits, k)
    return ids[np.argsort(-logits[ids], kind="stable")[:k]]


def _with_largest(logits: Logits, k: int) -> Ids:
    """Return ids among which the k largest are, ascending; not many more.

    PERF: cut into rows, the largest of each column are found at the speed of memory, and the k
    largest of all stand in columns whose own largest is among the k largest of those.
    """
    width = len(logits) // _N_ROWS
    if k > width // 16:
        return np.flatnonzero(logits >= _bound(logits, k))
    rows, tail = logits[: _N_ROWS * width].reshape(_N_ROWS, width), logits[_N_ROWS * width :]
    tops = rows.max(axis=0)
    bound = _bound(tops, k)
    columns = np.flatnonzero(tops >= bound)
    row, column = np.nonzero(rows[:, columns] >= bound)
    ids = row * width + columns[column]
    return np.concatenate((ids, np.flatnonzero(tail >= bound) + _N_ROWS * width))


def _bound(values: Logits, k: int) -> np.float32:
    """Return the k-th largest value, but no -inf."""
    return max(np.partition(values, len(values) - k)[len(values) - k], _LOWEST)
