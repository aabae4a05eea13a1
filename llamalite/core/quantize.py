"""Quantizing a GGUF file into another.

Imports `ffi`, `llamalite.errors` and its own siblings.

Source: llama_model_quantize.
"""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum
from pathlib import Path
from typing import Any

from llamalite.core.model import apply_params, written_whole
from llamalite.errors import InvalidParameter, ModelError, ModelNotFound
from llamalite.ffi import native_log
from llamalite.ffi.library import Library


class FileType(IntEnum):
    """What most tensors of a file are quantized to.

    Source: llama_ftype.
    """

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 7
    Q5_0 = 8
    Q5_1 = 9
    Q2_K = 10
    Q3_K_S = 11
    Q3_K_M = 12
    Q3_K_L = 13
    Q4_K_S = 14
    Q4_K_M = 15
    Q5_K_S = 16
    Q5_K_M = 17
    Q6_K = 18
    IQ2_XXS = 19
    IQ2_XS = 20
    Q2_K_S = 21
    IQ3_XS = 22
    IQ3_XXS = 23
    IQ1_S = 24
    IQ4_NL = 25
    IQ3_S = 26
    IQ3_M = 27
    IQ2_S = 28
    IQ2_M = 29
    IQ4_XS = 30
    IQ1_M = 31
    BF16 = 32
    TQ1_0 = 36
    TQ2_0 = 37
    MXFP4_MOE = 38


def quantize(
    library: Library,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    file_type: str | FileType,
    **params: Any,
) -> Path:
    """Write a quantized copy of a model and return its path.

    The target appears only when it is whole.

    Args:
        library: the opened libllama.
        source: a GGUF file, normally F32, F16 or BF16.
        target: where to write; must not be the source.
        file_type: a FileType or its name, in any case.
        params: fields of llama_model_quantize_params by their C names, such as nthread=4.

    Raises:
        InvalidParameter: no such file type, or target and source are one file.
        ModelNotFound: there is no source.
        ModelError: libllama refused; the message holds its last words.
        AbiMismatch: this build's quantize parameters are unknown.
    """
    kind = _file_type(file_type)
    src, dst = Path(source), Path(target)
    if not src.is_file():
        raise ModelNotFound(f"there is no model file {src}")
    if dst.exists() and dst.samefile(src):
        raise InvalidParameter(f"{dst} is the source itself: choose another target", param="target")
    layout, struct = library.quantize_defaults()
    apply_params(struct, layout, {**params, "ftype": int(kind)}, library.release)
    with written_whole(dst) as partial:
        native_log.forget()
        code = library.llama_model_quantize(
            os.fsencode(src), os.fsencode(partial), ctypes.addressof(struct)
        )
        if code:
            reason = native_log.recent_errors() or f"code {code}"
            raise ModelError(f"{src} can't be quantized to {kind.name}: {reason}")
    return dst


def _file_type(name: str | FileType) -> FileType:
    if isinstance(name, FileType):
        return name
    try:
        return FileType[str(name).upper()]
    except KeyError:
        known = ", ".join(kind.name for kind in FileType)
        raise InvalidParameter(
            f"there is no file type {name!r}; known are {known}", param="file_type"
        ) from None
