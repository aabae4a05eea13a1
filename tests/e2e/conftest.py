"""A real server with the real model, as `llamalite serve` starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from support.live_server import Server, deployed, serving
from support.real_models import smollm2

__all__ = ["smollm2"]


OTHERS = ("gunicorn", "uwsgi", "cheroot")
SERVERS = ["waitress", *(pytest.param(name, marks=pytest.mark.servers) for name in OTHERS)]


@pytest.fixture(scope="session")
def waitress(smollm2: Path) -> Iterator[Server]:
    """Yield `llamalite serve`: 4 slots of 1024 tokens."""
    with serving(
        str(smollm2), "--alias=smollm2", "--ctx-size=1024", "--parallel=4", "--api-key=sesame"
    ) as started:
        yield started


@pytest.fixture(scope="session", params=SERVERS)
def server(request: pytest.FixtureRequest, smollm2: Path) -> Iterator[Server]:
    """Yield the same app under each WSGI server."""
    if request.param == "waitress":
        yield request.getfixturevalue("waitress")
        return
    module = {"uwsgi": "pyuwsgi"}.get(request.param, request.param)
    pytest.importorskip(module, reason=f"{module} isn't installed")
    with deployed(
        request.param, MODELS=str(smollm2), ALIAS="smollm2", API_KEYS="sesame",
        LLAMALITE_N_CTX="1024", LLAMALITE_N_THREADS="1",
    ) as started:  # fmt: skip
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.address}/v1", api_key="sesame", max_retries=0, timeout=60
    ) as client:
        yield client
