"""The app for any WSGI server, with settings of its own: `gunicorn -c gunicorn.conf.py wsgi:app`.

Everything that isn't said here is as configured (`llamalite config show`).
"""

import os

from llamalite.engine.request import EngineOptions
from llamalite.server import create_app
from llamalite.server.site import SiteConfig

app = create_app(
    SiteConfig(
        models=tuple(os.environ.get("MODELS", "smollm2:135m").split()),
        alias=os.environ.get("ALIAS"),
        api_keys=tuple(os.environ.get("API_KEYS", "").split()),
        shared=True,  # all web processes use one engine for each model
    ),
    EngineOptions(n_parallel=int(os.environ.get("PARALLEL", "4"))),
)
