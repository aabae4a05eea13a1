"""The server: OpenAI's API as a WSGI app over engines in processes of their own.

`create_app(config)` is a plain WSGI callable; `app` is one made of the configuration in force, for
`gunicorn llamalite.server:app`. Imports everything below it; falcon and waitress are used here
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamalite.server.app import create_app

__all__ = ["app", "create_app"]


def __getattr__(name: str) -> Any:
    """Make what is asked for; `app` once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llamalite.server.app import create_app

    value = create_app if name == "create_app" else create_app()
    globals()[name] = value
    return value
