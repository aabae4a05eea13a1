"""The WSGI app: which resource answers which address.

Imports falcon and its siblings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import falcon

from llamalite.config import LLMConfig
from llamalite.engine.request import EngineOptions
from llamalite.libs.transfer.progress import say_on_stderr
from llamalite.server.guards import guards_for
from llamalite.server.health import Health
from llamalite.server.later import NotYet
from llamalite.server.llamacpp.completion import Completion
from llamalite.server.llamacpp.embedding import Embedding
from llamalite.server.llamacpp.settings import Props, SlotAction, Slots
from llamalite.server.llamacpp.tokens import ApplyTemplate, Detokenize, Tokenize
from llamalite.server.metrics import Metrics
from llamalite.server.openai.chat import ChatCompletions
from llamalite.server.openai.completions import Completions
from llamalite.server.openai.embeddings import Embeddings
from llamalite.server.openai.models import Models
from llamalite.server.openapi import OpenAPI
from llamalite.server.problems import HTTPProblem, on_error, on_http_error
from llamalite.server.site import Site, SiteConfig, configured_site, settings_of

_NOT_YET = ("/rerank", "/v1/rerank", "/reranking", "/v1/reranking", "/infill", "/lora-adapters")


def create_app(
    config: SiteConfig | None = None,
    options: EngineOptions | None = None,
    *,
    llm_config: LLMConfig | None = None,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> App:
    """Return a WSGI app that answers with models of this computer.

    Models are loaded when they are first asked for; `app.site.preload()` loads those the
    configuration names.

    Args:
        config: how requests are answered; None = as configured, with any installed model, the
            configured default_model where none is named, by engines that all web processes share.
        options: of each engine.
        llm_config: stands for the configuration file and its defaults.
        say: takes lines while models are fetched and loaded; None = stderr.
        settings: keyword arguments of `llamalite.LLM`, for every model.
    """
    site = Site(
        config or configured_site(),
        options or EngineOptions(n_parallel=4),
        {**({} if llm_config is None else settings_of(llm_config)), **settings},
        say or say_on_stderr,
        llm_config,
    )
    app = App(middleware=guards_for(site.config))
    app.site = site
    app.add_error_handler(Exception, on_error)
    app.add_error_handler(HTTPProblem, on_error)
    app.add_error_handler(falcon.HTTPError, on_http_error)
    health, models = Health(site), Models(site)
    chat, completions, embeddings = ChatCompletions(site), Completions(site), Embeddings(site)
    own_completion, own_embedding = Completion(site), Embedding(site)
    routes = {
        "/health": health, "/v1/health": health, "/ready": health, "/metrics": Metrics(site),
        "/chat/completions": chat, "/v1/chat/completions": chat,
        "/v1/completions": completions, "/v1/embeddings": embeddings,
        "/models": models, "/v1/models": models,
        "/completion": own_completion, "/completions": own_completion,
        "/embedding": own_embedding, "/embeddings": own_embedding,
        "/tokenize": Tokenize(site), "/detokenize": Detokenize(site),
        "/apply-template": ApplyTemplate(site), "/props": Props(site), "/slots": Slots(site),
        "/slots/{number:int}": SlotAction(),
        "/openapi.json": OpenAPI(),
        **{path: NotYet(path) for path in _NOT_YET},
    }  # fmt: skip
    for path, resource in routes.items():
        app.add_route(path, resource)
    for path in ("/models", "/v1/models"):
        app.add_route(path + "/{name:path}", models, suffix="one")
    return app


class App(falcon.App[falcon.Request, falcon.Response]):
    """The WSGI app.

    Attributes:
        site: its configuration and models.
    """

    site: Site
