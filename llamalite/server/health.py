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

    def on_get(self, _http: falcon.Request, response: falcon.Response) -> None:
        """Answer 200, or 503 while the models the server was started with are loading."""
        if not self._site.is_ready:
            answer(
                response,
                Problem(503, "the model is being loaded", "unavailable_error", "loading_model"),
            )
            return
        response.data = msgspec.json.encode({"status": "ok"})
