"""The real libllama and real models: fetched once, then taken from where llamalite keeps them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.real_models import smollm2, stories

from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.ffi.library import Library, open_library
from llamalite.libs.install import ensure_library

if TYPE_CHECKING:
    from llamalite import LLM

__all__ = ["smollm2", "stories"]


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
