"""Native functions whose arguments changed over the builds, behind one Python name each.

Imports the standard library, `llamalite.errors` and its own siblings.
"""

from __future__ import annotations

import ctypes
import os

from llamalite.errors import SymbolMissing
from llamalite.ffi.library import Library
from llamalite.ffi.structs import TokenData, TokenDataArray

_PENALTIES_CHANGED = 10258
_DRY_CHANGED = 10273

_new_penalties: dict[int, bool] = {}


def penalties_take_n_vocab(library: Library) -> bool:
    """Say whether llama_sampler_init_penalties has the leading n_vocab (from b10258).

    The symbols tell, except in b10182 to b10354: there the function itself is asked, by a call
    whose two readings differ in which tokens they penalise.

    Raises:
        SymbolMissing: this can't be told on Windows, where the probe's arguments would be garbage.
    """
    first, last = library.builds
    if first >= _PENALTIES_CHANGED:
        return True
    if last < _PENALTIES_CHANGED:
        return False
    if os.name == "nt":
        raise SymbolMissing(
            f"which arguments the penalties sampler of this libllama ({library.release}) takes "
            "can't be told on Windows: fetch another build with 'llamalite lib install'"
        )
    key = id(library)
    if key not in _new_penalties:
        _new_penalties[key] = _probe_penalties(library)
    return _new_penalties[key]


def _probe_penalties(library: Library) -> bool:
    # ABI: integers and floats travel in registers of their own, so both readings are defined:
    # new (n_vocab 8, last_n 1, repeat 2) forgets token 3; old (last_n 8, repeat 2) penalises it.
    sampler = library.llama_sampler_init_penalties(8, 1, 2.0, 0.0, 0.0)
    try:
        for token in (3, 5):
            library.llama_sampler_accept(sampler, token)
        candidates = (TokenData * 8)(*[TokenData(token, 1.0, 0.0) for token in range(8)])
        array = TokenDataArray(ctypes.addressof(candidates), 8, -1, False)
        library.llama_sampler_apply(sampler, ctypes.addressof(array))
        penalised = {entry.id for entry in candidates if entry.logit != 1.0}
    finally:
        library.llama_sampler_free(sampler)
    return penalised == {5}


def init_penalties(
    library: Library, n_vocab: int, last_n: int, repeat: float, frequency: float, presence: float
) -> int:
    """Make a penalties sampler with whichever arguments this build takes."""
    if penalties_take_n_vocab(library):
        return int(
            library.llama_sampler_init_penalties(n_vocab, last_n, repeat, frequency, presence)
        )
    old = library.bind_old("llama_sampler_init_penalties")
    return int(old(last_n, repeat, frequency, presence))


def init_dry(
    library: Library,
    vocab: int,
    n_ctx_train: int,
    multiplier: float,
    base: float,
    allowed_length: int,
    last_n: int,
    breakers: tuple[str, ...],
) -> int:
    """Make a DRY sampler with whichever arguments this build takes.

    Raises:
        SymbolMissing: the build lies where the change can't be told; a wrong guess would put a
            pointer where a count belongs.
    """
    texts = [text.encode("utf-8") for text in breakers]
    array = (ctypes.c_char_p * len(texts))(*texts)
    tail = (multiplier, base, allowed_length, last_n, ctypes.addressof(array), len(texts))
    first, _ = library.builds
    if first >= _DRY_CHANGED:
        return int(library.llama_sampler_init_dry(vocab, *tail))
    if not penalties_take_n_vocab(library):
        old = library.bind_old("llama_sampler_init_dry")
        return int(old(vocab, n_ctx_train, *tail))
    raise SymbolMissing(
        f"which arguments the DRY sampler of this libllama ({library.release}) takes can't be "
        "told: leave DRY off, or fetch another build with 'llamalite lib install'"
    )
