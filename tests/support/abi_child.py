"""Run in a process of its own: tries wrong layouts on LLAMALITE_LIB, then opens it rightly.

ROUTE=libffi and ROUTE=values take away the better ways of seeing what a function writes. Prints one
JSON object: chosen layouts, and every wrong attempt that was not refused.
"""

from __future__ import annotations

import json
import os

from llamalite.errors import AbiMismatch
from llamalite.ffi import capture, layouts
from llamalite.ffi.library import Registry, open_library
from llamalite.libs.find import find_library

ROUTES = {"": capture.find_route, "libffi": capture.through_libffi, "values": lambda: None}


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
    name = os.environ.get("ROUTE", "")
    capture.find_route = ROUTES[name]
    assert (capture.find_route() is None) == (name == "values")
    chosen = os.environ["EXPECTED_LAYOUTS"].split(",")
    every = [layout.name for layout in (*layouts.MODEL_PARAMS, *layouts.CONTEXT_PARAMS)]
    taken = [name for name in every if name not in chosen if not refused(layout=name)]
    lost = [name for name in chosen if not refused(registry=Registry().without(name))]
    library = open_library(files)
    found = [library.model_layout.name, library.context_layout.name]
    print(json.dumps({"wrong_taken": taken, "loss_unnoticed": lost, "found": found}))


if __name__ == "__main__":
    main()
