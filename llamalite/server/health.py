"""/health and /ready: whether the server can answer."""

from __future__ import annotations

import falcon
import msgspec

from llamalite.server.problems import Problem, answer
from llamalite.server.site import Site


class Health:
    """Says whether models are loading; needs no key."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_get(self, http: falcon.Request, response: falcon.Response) -> None:
        """Answer 200, or 503 while the models the server was started with are loading."""
        self._site.preload_soon()
        if not self._site.is_ready:
            loading = Problem(503, "Loading model", "unavailable_error", "loading_model")
            answer(http, response, loading)
            return
        response.data = msgspec.json.encode({"status": "ok"})
