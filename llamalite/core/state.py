"""Saving and restoring what a context remembers, whole or one sequence.

A state belongs to the model, the context's parameters and the library build that made it. It is
sealed with a digest over all of that, because old builds read a damaged or foreign one without
checks and crash.

Imports numpy, `llamalite.errors` and its own siblings.

Source: llama_state_get_data, llama_state_seq_get_data and their kin.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llamalite.core.model import written_whole
from llamalite.errors import InvalidParameter
from llamalite.ffi.structs import StateSeqFlags

if TYPE_CHECKING:
    from llamalite.core.context import Context

_MAGIC = b"llamalite state 1"
_DIGEST_BYTES = 32
_COUNT = struct.Struct("<Q")


def save_state(context: Context) -> bytes:
    """Return the whole state: memory of all sequences, and the last logits."""
    lib = context.library
    with context.in_use() as handle:
        payload = _read(lib.llama_state_get_size(handle), lib.llama_state_get_data, handle)
    return _seal(payload, _origin(context, whole=True))


def load_state(context: Context, state: bytes) -> None:
    """Put back a whole state.

    Raises:
        InvalidParameter: it is damaged, or made by another model, context or build.
    """
    payload = _unseal(state, _origin(context, whole=True))
    with context.in_use() as handle:
        if not context.library.llama_state_set_data(handle, payload, len(payload)):
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
    context.check_seq_id(seq_id)
    lib = context.library
    with context.in_use() as handle:
        if flags:
            size = lib.llama_state_seq_get_size_ext(handle, seq_id, flags)
            payload = _read(size, lib.llama_state_seq_get_data_ext, handle, seq_id, flags)
        else:
            size = lib.llama_state_seq_get_size(handle, seq_id)
            payload = _read(size, lib.llama_state_seq_get_data, handle, seq_id)
    return _seal(payload, _origin(context, flags=flags))


def load_sequence(
    context: Context, seq_id: int, state: bytes, flags: StateSeqFlags = StateSeqFlags.NONE
) -> None:
    """Put a sequence's state into a sequence.

    Raises:
        InvalidParameter: it is damaged, made by another model or build, or there is no room.
    """
    context.check_seq_id(seq_id)
    payload = _unseal(state, _origin(context, flags=flags))
    lib, size = context.library, len(payload)
    with context.in_use() as handle:
        if flags:
            done = lib.llama_state_seq_set_data_ext(handle, payload, size, seq_id, flags)
        else:
            done = lib.llama_state_seq_set_data(handle, payload, size, seq_id)
    if not done:
        raise InvalidParameter(_complaint(len(state)), param="state")


def copy_sequence(
    context: Context, seq_id: int, flags: StateSeqFlags = StateSeqFlags.NONE, max_bytes: int = 2**40
) -> npt.NDArray[np.uint8] | None:
    """Return uint8[n]: a sequence's state for `paste_sequence` in this very context, unsealed.

    Args:
        context: the context.
        seq_id: the sequence.
        flags: as for `save_sequence`; left out on builds before b6160.
        max_bytes: None is returned for a larger state.
    """
    context.check_seq_id(seq_id)
    get_size, get_data, _, rest = _functions(context, flags)
    with context.in_use() as handle:
        size = get_size(handle, seq_id, *rest)
        if not 0 < size <= max_bytes:
            return None
        state = np.empty(size, np.uint8)
        written = get_data(handle, state.ctypes.data, size, seq_id, *rest)
    return state if written == size else None


def paste_sequence(
    context: Context,
    seq_id: int,
    state: npt.NDArray[np.uint8],
    flags: StateSeqFlags = StateSeqFlags.NONE,
) -> bool:
    """Put back what `copy_sequence` gave; False if there is no room."""
    context.check_seq_id(seq_id)
    _, _, set_data, rest = _functions(context, flags)
    with context.in_use() as handle:
        return bool(set_data(handle, state.ctypes.data, len(state), seq_id, *rest))


def _functions(context: Context, flags: int) -> tuple[Any, Any, Any, tuple[int, ...]]:
    lib = context.library
    if flags and lib.has("llama_state_seq_get_data_ext"):
        return (
            lib.llama_state_seq_get_size_ext, lib.llama_state_seq_get_data_ext,
            lib.llama_state_seq_set_data_ext, (int(flags),),
        )  # fmt: skip
    return (
        lib.llama_state_seq_get_size, lib.llama_state_seq_get_data,
        lib.llama_state_seq_set_data, (),
    )  # fmt: skip


def save_sequence_file(
    context: Context, seq_id: int, path: str | os.PathLike[str], tokens: list[int]
) -> int:
    """Write a sequence's state and its tokens to a file, and return the bytes written.

    Raises:
        ModelError: it can't be written there.
    """
    ids = context.model.vocab.as_array(tokens).astype("<i4")
    content = _COUNT.pack(len(ids)) + ids.tobytes() + save_sequence(context, seq_id)
    with written_whole(path) as partial:
        partial.write_bytes(_seal(content, b"file"))
    return Path(path).stat().st_size


def load_sequence_file(context: Context, seq_id: int, path: str | os.PathLike[str]) -> list[int]:
    """Read such a file into a sequence and return its tokens.

    Raises:
        InvalidParameter: there is no such file, or it doesn't fit.
    """
    try:
        sealed = Path(path).read_bytes()
    except OSError as error:
        raise InvalidParameter(
            f"the state file {os.fspath(path)} can't be read: {error.strerror or error}",
            param="path",
        ) from None
    content = _unseal(sealed, b"file")
    (count,) = _COUNT.unpack_from(content)
    end = _COUNT.size + 4 * count
    ids = np.frombuffer(content[_COUNT.size : end], "<i4")
    load_sequence(context, seq_id, content[end:])
    return [int(token) for token in ids.tolist()]


def _read(size: int, function: Any, handle: int, *rest: int) -> bytes:
    buffer = ctypes.create_string_buffer(max(size, 1))
    written = function(handle, ctypes.addressof(buffer), size, *rest)
    return buffer.raw[:written]


def _origin(context: Context, *, whole: bool = False, flags: int = 0) -> bytes:
    model = context.model
    facts = [
        context.library.release, model.description, model.n_params, model.size_bytes,
        context.cache_key, int(flags),
    ]  # fmt: skip
    if whole:
        facts += [context.n_ctx, context.n_seq_max, context.n_batch]
    return repr(facts).encode()


def _seal(payload: bytes, origin: bytes) -> bytes:
    return _MAGIC + _digest(payload, origin) + payload


def _unseal(state: bytes, origin: bytes) -> bytes:
    head = len(_MAGIC) + _DIGEST_BYTES
    payload = bytes(state[head:])
    if state[:head] != _MAGIC + _digest(payload, origin):
        raise InvalidParameter(_complaint(len(state)), param="state")
    return payload


def _digest(payload: bytes, origin: bytes) -> bytes:
    digest = hashlib.blake2b(_COUNT.pack(len(origin)) + origin, digest_size=_DIGEST_BYTES)
    digest.update(payload)
    return digest.digest()


def _complaint(size: int) -> str:
    return (
        f"this state of {size} bytes is damaged, or doesn't belong to this model, context and "
        "library build: compute the prompt again"
    )
