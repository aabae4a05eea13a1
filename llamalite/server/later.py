"""Addresses that come with a later version."""

from __future__ import annotations

import falcon

from llamalite.server.problems import not_supported


class NotYet:
    """Answers 501.

    Args:
        path: the address.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def on_get(self, _http: falcon.Request, _response: falcon.Response) -> None:
        """Refuse."""
        raise not_supported(self._path)

    def on_post(self, _http: falcon.Request, _response: falcon.Response) -> None:
        """Refuse."""
        raise not_supported(self._path)
