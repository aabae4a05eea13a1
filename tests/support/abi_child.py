"""Run in a process of its own: tries wrong layouts on LLAMALITE_LIB, then opens it rightly.

Prints one JSON object: chosen layouts, and every wrong attempt that was not refused.
"""

from __future__ import annotations

import json
import os

from llamalite.errors import AbiMismatch
from llamalite.ffi import layouts
from llamalite.ffi.library import Registry, open_library
from llamalite.libs.find import find_library


def refused(**arguments: object) -> bool:
    files = find_library()
    assert files is not None
    try:
        open_library(files, **arguments)  # type: ignore[arg-type]
    except AbiMismatch:
        return True
    return False


def main() -> None:
    files = find_library()
    assert files is not None
    chosen = os.environ["EXPECTED_LAYOUTS"].split(",")
    every = [layout.name for layout in (*layouts.MODEL_PARAMS, *layouts.CONTEXT_PARAMS)]
    taken = [name for name in every if name not in chosen if not refused(layout=name)]
    lost = [name for name in chosen if not refused(registry=Registry().without(name))]
    library = open_library(files)
    found = [library.model_layout.name, library.context_layout.name]
    print(json.dumps({"wrong_taken": taken, "loss_unnoticed": lost, "found": found}))


if __name__ == "__main__":
    main()
