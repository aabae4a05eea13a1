"""/v1/models."""

from __future__ import annotations

from typing import Any

import falcon
import msgspec

from llamalite.server.directory import Listed
from llamalite.server.problems import refuse
from llamalite.server.site import Site


class Models:
    """Lists the models that may be asked for."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_get(self, _http: falcon.Request, response: falcon.Response) -> None:
        """List them."""
        data = [_shown(listed, self._site) for listed in self._site.listed()]
        response.data = msgspec.json.encode({"object": "list", "data": data})

    def on_get_one(self, _http: falcon.Request, response: falcon.Response, name: str) -> None:
        """Describe one; names may hold slashes."""
        resolved = self._site.directory.find(name)
        for listed in self._site.listed():
            if listed.id == name or (listed.model and listed.model.path == resolved.path):
                shown = {**_shown(listed, self._site), "id": name}
                response.data = msgspec.json.encode(shown)
                return
        raise refuse(404, f"there is no model {name[:100]!r}", code="model_not_found")


def _shown(listed: Listed, site: Site) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": listed.id,
        "object": "model",
        "created": listed.created,
        "owned_by": "llamalite",
    }
    model = listed.model
    if model is not None:
        shown["meta"] = {
            "n_ctx_train": model.n_ctx_train,
            "n_params": model.n_params,
            "size": model.n_bytes,
            "quantization": model.quantization,
            "architecture": model.architecture,
        }
    for served in site.fleet.loaded().values():
        same = model is not None and served.resolved.path == model.path
        if served.public_name == listed.id or same:
            shown["context_length"] = served.facts.n_ctx
            able = "completion" if served.facts.can_generate else "embedding"
            shown["capabilities"] = [able]
    return shown
