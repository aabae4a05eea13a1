"""A real server with the real model, as `llamalite serve` starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from support.live_server import Server, serving
from support.real_models import smollm2

__all__ = ["smollm2"]


@pytest.fixture(scope="session")
def server(smollm2: Path) -> Iterator[Server]:
    with serving(
        str(smollm2), "--alias=smollm2", "--ctx-size=1024", "--parallel=4", "--api-key=sesame"
    ) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.address}/v1", api_key="sesame", max_retries=0, timeout=60
    ) as client:
        yield client
