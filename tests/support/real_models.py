"""Where the real models lie that native tests and benchmarks run on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llamalite.models.resolve import resolve_model

SHARED_MODELS = Path(__file__).parents[3] / "shared" / "models"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return resolve_model(os.environ.get("LLAMALITE_TEST_MODEL", "smollm2:135m"))


@pytest.fixture(scope="session")
def stories() -> Path:
    path = SHARED_MODELS / "stories260K.gguf"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    return path
