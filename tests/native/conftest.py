"""The real libllama and real models: fetched once, then taken from where llamalite keeps them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.ffi.library import Library, open_library
from llamalite.libs.install import ensure_library
from llamalite.models.resolve import resolve_model

if TYPE_CHECKING:
    from llamalite import LLM

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


@pytest.fixture(scope="session")
def library() -> Library:
    return open_library(ensure_library())


@pytest.fixture(scope="session")
def model(library: Library, smollm2: Path) -> Iterator[Model]:
    with Model(library, smollm2) as model:
        yield model


@pytest.fixture
def context(model: Model) -> Iterator[Context]:
    with Context(model, n_ctx=512, n_threads=1, n_threads_batch=1) as context:
        yield context


@pytest.fixture(scope="session")
def llm(smollm2: Path) -> Iterator[LLM]:
    from llamalite import LLM

    with LLM(smollm2, n_ctx=1024, n_threads=1) as llm:
        yield llm
