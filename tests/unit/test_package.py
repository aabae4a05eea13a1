"""The package as a whole: what importing it costs, its names, its errors."""

from __future__ import annotations

import inspect
import subprocess
import sys

import llamalite
from llamalite import errors


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_importing_loads_neither_numpy_nor_the_native_layer() -> None:
    code = "import sys, llamalite; print(sorted(m.split('.')[0] for m in sys.modules))"
    loaded = run("-c", code)
    assert "'llamalite'" in loaded
    for heavy in ("numpy", "ctypes", "jinja2", "huggingface_hub", "docopt"):
        assert f"'{heavy}'" not in loaded


def test_public_names_exist() -> None:
    for name in llamalite.__all__:
        assert getattr(llamalite, name) is not None
    assert set(llamalite.__all__) <= set(dir(llamalite))


def test_the_error_tree_is_the_documented_one() -> None:
    tree = errors.__doc__ or ""
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]
    assert len(classes) > 30
    for cls in classes:
        assert issubclass(cls, errors.LlamaliteError)
        assert cls.__name__ in tree
        assert inspect.getdoc(cls)


def test_errors_carry_what_a_program_needs() -> None:
    too_long = errors.ContextLengthExceeded(10, 4)
    assert (too_long.n_prompt, too_long.n_ctx, too_long.param) == (10, 4, "prompt")
    bad = errors.Truncated("short", path="m.gguf", offset=7)
    assert str(bad) == "m.gguf: short (at byte 7)"
    assert errors.NoKVSlot("full", code=1).code == 1
