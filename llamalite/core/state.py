"""Saving and restoring what a context remembers, whole or one sequence.

A state belongs to the model, the context's parameters and the library build that made it.

Imports numpy, `llamalite.errors` and its own siblings.

Source: llama_state_*.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llamalite.errors import InvalidParameter
from llamalite.ffi.structs import StateSeqFlags

if TYPE_CHECKING:
    from llamalite.core.context import Context


def save_state(context: Context) -> bytes:
    """Return the whole state: memory of all sequences, and the last logits."""
    size: int = context.library.llama_state_get_size(context.handle)
    return _read(size, context.library.llama_state_get_data, context.handle)


def load_state(context: Context, state: bytes) -> None:
    """Put back a whole state.

    Raises:
        InvalidParameter: it doesn't belong to this model, context or build.
    """
    if not context.library.llama_state_set_data(context.handle, state, len(state)):
        raise InvalidParameter(_complaint(len(state)), param="state")


def save_sequence(
    context: Context, seq_id: int, flags: StateSeqFlags = StateSeqFlags.NONE
) -> bytes:
    """Return the state of one sequence.

    Args:
        context: the context.
        seq_id: the sequence.
        flags: PARTIAL_ONLY saves just what can't be recomputed by cutting (from b6160).
    """
    _check_seq(context, seq_id)
    lib, handle = context.library, context.handle
    if flags:
        size: int = lib.llama_state_seq_get_size_ext(handle, seq_id, flags)
        return _read(size, lib.llama_state_seq_get_data_ext, handle, seq_id, flags)
    size = lib.llama_state_seq_get_size(handle, seq_id)
    return _read(size, lib.llama_state_seq_get_data, handle, seq_id)


def load_sequence(
    context: Context, seq_id: int, state: bytes, flags: StateSeqFlags = StateSeqFlags.NONE
) -> None:
    """Put a sequence's state into a sequence.

    Raises:
        InvalidParameter: it doesn't fit this model, context or build.
    """
    _check_seq(context, seq_id)
    lib, handle = context.library, context.handle
    if flags:
        done = lib.llama_state_seq_set_data_ext(handle, state, len(state), seq_id, flags)
    else:
        done = lib.llama_state_seq_set_data(handle, state, len(state), seq_id)
    if not done:
        raise InvalidParameter(_complaint(len(state)), param="state")


def save_sequence_file(
    context: Context, seq_id: int, path: str | os.PathLike[str], tokens: list[int]
) -> int:
    """Write a sequence's state and its tokens to a file, and return the bytes written."""
    _check_seq(context, seq_id)
    ids = np.asarray(tokens, np.int32)
    return int(
        context.library.llama_state_seq_save_file(
            context.handle, os.fsencode(path), seq_id, ids.ctypes.data, len(ids)
        )
    )


def load_sequence_file(context: Context, seq_id: int, path: str | os.PathLike[str]) -> list[int]:
    """Read such a file into a sequence and return its tokens.

    Raises:
        InvalidParameter: there is no such file, or it doesn't fit.
    """
    _check_seq(context, seq_id)
    if not Path(path).is_file():
        raise InvalidParameter(f"there is no state file {os.fspath(path)}", param="path")
    ids = np.zeros(max(context.n_ctx, 1), np.int32)
    count = ctypes.c_size_t()
    done = context.library.llama_state_seq_load_file(
        context.handle,
        os.fsencode(path),
        seq_id,
        ids.ctypes.data,
        len(ids),
        ctypes.addressof(count),
    )
    if not done:
        raise InvalidParameter(_complaint(Path(path).stat().st_size), param="path")
    return [int(token) for token in ids[: count.value].tolist()]


def _read(size: int, function: Any, handle: int, *rest: int) -> bytes:
    buffer = ctypes.create_string_buffer(max(size, 1))
    written = function(handle, ctypes.addressof(buffer), size, *rest)
    return buffer.raw[:written]


def _check_seq(context: Context, seq_id: int) -> None:
    if not 0 <= seq_id < context.n_seq_max:
        raise InvalidParameter(
            f"sequence {seq_id} is not below {context.n_seq_max}", param="seq_id"
        )


def _complaint(size: int) -> str:
    return (
        f"this state of {size} bytes doesn't belong to this model, context size and library "
        "build: compute the prompt again"
    )
