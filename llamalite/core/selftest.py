"""Loads a libllama and decodes some tokens: `python -m llamalite.core.selftest`, and it may die.

Owns what is tried, and in which order it is said: a JSON line before each stage, so that whoever
reads knows how far it got. Doesn't know what follows from it; `trial` does. Imports `core`, `ffi`,
`llamalite.libs` and `llamalite.errors`.

Reads one JSON object from stdin: `library` (path of libllama), `use_extra_bufts`, `cpu_variant`,
`model` (path), `limit_s`.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from llamalite.core.attempt import OPENING, SCORING
from llamalite.core.child import be_a_child
from llamalite.errors import LlamaliteError
from llamalite.ffi.library import Library, open_library
from llamalite.ffi.variants import Remedies, variant_files
from llamalite.libs.files.folder import LibraryFiles, scan_folder

_N_PROMPT, _N_DECODE = 40, 8  # the matrix and the vector kernels
_ALL_LAYERS = 999


def main() -> int:
    """Run the test that stdin asks for."""
    request = json.load(sys.stdin)
    be_a_child(request["limit_s"])
    # What native code prints must not get among our lines.
    sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        _test(request)
    except LlamaliteError as error:
        _say(refused=str(error).replace(request["model"], "a model"), kind=type(error).__name__)
    except Exception as error:
        _say(broken=f"{type(error).__name__}: {error}")
    return 0


def _say(**fields: Any) -> None:
    print(json.dumps({"llamalite": fields}), flush=True)


def _test(request: dict[str, Any]) -> None:
    _say(stage="looking at the files")
    files = scan_folder(Path(request["library"]))
    remedies = Remedies(request["use_extra_bufts"], request["cpu_variant"])
    variants = [remedies.cpu_variant] if remedies.cpu_variant else _variants(files)
    _say(stage=OPENING)
    library = open_library(files, remedies=remedies)
    if not remedies.use_extra_bufts and not library.model_layout.has("use_extra_bufts"):
        _say(refused="this build has no use_extra_bufts", kind="SymbolMissing")
        return
    devices = library.devices()
    tokens_s = _decode(library, Path(request["model"]))
    _say(
        passed={
            "release": library.release,
            "model_layout": library.model_layout.name,
            "context_layout": library.context_layout.name,
            "cpu_variant": variants[0] if variants else None,
            "tokens_s": round(tokens_s, 1),
            "devices": [
                {
                    "name": device.name,
                    "description": device.description,
                    "kind": device.kind.name,
                    "free_bytes": device.free_bytes,
                    "total_bytes": device.total_bytes,
                }
                for device in devices
            ],
        }
    )


def _variants(files: LibraryFiles) -> list[str]:
    """Rank the CPU variants as ggml's loader does, the best first.

    Source: ggml_backend_score (0 = not for this processor).
    """
    named = variant_files(files)
    if not named:
        return []
    ctypes.CDLL(str(files.ggml_base))
    scores = {}
    for name, path in named.items():
        _say(stage=f"{SCORING}{name}")
        score = getattr(ctypes.CDLL(str(path)), "ggml_backend_score", None)
        scores[name] = score() if score is not None else 1
    ranked = sorted((name for name in scores if scores[name] > 0), key=lambda name: -scores[name])
    _say(variants=ranked)
    return ranked


def _decode(library: Library, path: Path) -> float:
    """Decode a prompt and some tokens; return tokens per second of the latter.

    Raises:
        LlamaliteError: the model can't be loaded, or what comes out is no number.
    """
    import numpy as np

    from llamalite.core.batch import Batch
    from llamalite.core.context import Context
    from llamalite.core.model import Model
    from llamalite.errors import FatalDecode

    _say(stage="loading a model")
    layers = _ALL_LAYERS if any(device.is_gpu for device in library.devices()) else 0
    with (
        Model(library, path, n_gpu_layers=layers) as model,
        Context(model, n_ctx=128, n_batch=64, n_ubatch=64, n_threads=1, n_threads_batch=1) as ctx,
    ):
        _say(stage="decoding")
        batch = Batch(64, model.vocab.n_tokens)
        tokens = np.arange(1, _N_PROMPT + 1, dtype=np.int32) % model.vocab.n_tokens
        batch.extend(tokens, 0, outputs="last")
        ctx.decode(batch)
        started = time.perf_counter()
        for pos in range(_N_PROMPT, _N_PROMPT + _N_DECODE):
            logits = ctx.logits()
            # NaN inside shows as NaN, or as equal logits where quantizing it gives zeros.
            if not np.isfinite(logits).all() or logits.min() == logits.max():
                raise FatalDecode("what it computes is not numbers")
            batch.clear()
            batch.add(int(logits.argmax()), pos, output=True)
            ctx.decode(batch)
        return _N_DECODE / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
