"""What all resources share: the configuration, the models, and how a request gets one.

Imports falcon and its siblings.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import falcon

from llamalite.config import LLMConfig, ModelConfig, load_config
from llamalite.config.fields import check_fields, flag, number, text, texts, whole
from llamalite.config.places import in_force
from llamalite.config.settings import known_keys
from llamalite.engine.request import EngineOptions
from llamalite.errors import LlamaliteError, QueueFull
from llamalite.models.resolve import Resolved
from llamalite.server.directory import Directory, Listed
from llamalite.server.fleet import Fleet
from llamalite.server.served import ServedModel

_log = logging.getLogger("llamalite.server")
_SETTLE_S = 2.0
Say = Callable[[str], None]
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@dataclass(frozen=True)
class SiteConfig:
    """How requests are answered; what holds for a port is `ServerConfig`'s.

    Raises:
        InvalidParameter: a value is out of range.
    """

    models: tuple[str, ...] = texts((), "models to load at the start; the first is the default")
    alias: str | None = text(None, "what to call the first of them")
    api_keys: tuple[str, ...] = texts((), "keys that clients show", is_secret=True)
    cors_origins: tuple[str, ...] = texts((), "web pages' origins that may ask")
    allowed_hosts: tuple[str, ...] = texts((), "Host headers; empty = any, * = any")
    autoload: bool = flag(True, "load installed models that requests name")
    strict: bool = flag(False, "refuse unknown fields")
    shared: bool = flag(False, "engines belong to the host, for several web processes")
    models_max: int = whole(0, 0, 1000, "models loaded at once; 0 = as many as fit")
    keep_alive_s: float = number(300.0, -1.0, 1e9, "seconds an unused model stays; -1 = for good")
    max_body_bytes: int = whole(32 << 20, 1024, 1 << 40, "largest request")

    def __post_init__(self) -> None:
        check_fields(self)


def configured_site() -> SiteConfig:
    """Return what the configuration says, for web processes that share engines."""
    server = load_config().server
    return SiteConfig(api_keys=server.api_keys, cors_origins=server.cors_origins, shared=True)


def settings_of(config: LLMConfig) -> dict[str, Any]:
    """Return what a configuration says of all models, by the names `Engine.load` takes."""
    said = {
        "n_ctx": config.n_ctx,
        "n_gpu_layers": config.n_gpu_layers,
        "chat_template": config.chat_template,
        "system_prompt": config.system_prompt,
        **{f"sampling.{name}": value for name, value in vars(config.sampling).items()},
    }
    known = known_keys(ModelConfig)
    return {name: said[name] for name in said if name in known and said[name] is not None}


class Site:
    """Configuration and models.

    Args:
        config: how requests are answered.
        options: of engines.
        settings: keyword arguments of `Engine.load`, for every model.
        say: takes lines while models are fetched and loaded.
        llm_config: stands for the configuration file, None = that holds.

    Attributes:
        most_at_once: requests for models that may be there; 0 = any number.
    """

    def __init__(
        self,
        config: SiteConfig,
        options: EngineOptions,
        settings: Mapping[str, Any],
        say: Say,
        llm_config: LLMConfig | None = None,
    ) -> None:
        self._llm_config = llm_config
        self.config, self.options = config, options
        self._settings, self._say = dict(settings), say
        with in_force(llm_config):
            self.directory = Directory(
                config.models, config.alias, any_name=not config.autoload, say=say
            )
        self._lock = threading.Lock()
        self._n_at_once = self.most_at_once = 0
        self._resolved: dict[str, Resolved] = {}
        self._is_ready = not self.directory.named
        self._preloading: threading.Thread | None = None
        self.fleet: Fleet[ServedModel] = Fleet(
            self._load, most=config.models_max, keep_alive_s=config.keep_alive_s
        )

    @property
    def is_ready(self) -> bool:
        """Say whether the models the server was started with are loaded."""
        return self._is_ready

    def preload_soon(self, wait_s: float = 0.0) -> None:
        """Have them loaded by a thread of this process, and wait that long for it.

        Web processes are forked at times, so that there is none before the first request.
        """
        if self._is_ready:
            return
        with self._lock:
            if self._preloading is None:
                self._preloading = threading.Thread(
                    target=self._preload_or_log, name="llamalite-preload", daemon=True
                )
                self._preloading.start()
            thread = self._preloading
        thread.join(wait_s)

    def _preload_or_log(self) -> None:
        try:
            self.preload()
        except LlamaliteError as error:
            _log.error("the models named at the start can't be loaded: %s", error)
            self._preloading = None  # the next request tries again

    def preload(self) -> None:
        """Load the models the server was started with, and keep them.

        Raises:
            LlamaliteError: one can't be loaded.
        """
        with in_force(self._llm_config):
            for resolved in self.directory.named:
                key = str(resolved.path)
                self._resolved[key] = resolved
                self.fleet.keep(key)
        self._is_ready = True

    def lend(self, name: str | None) -> Lent:
        """Return the model that a request names, loaded.

        Raises:
            LlamaliteError: there is none such, or it can't be loaded.
        """
        with in_force(self._llm_config):
            return self._lend(self.directory.find(name), name)

    def _lend(self, resolved: Resolved, name: str | None) -> Lent:
        # NOTE: a preset over the same file is another model: its settings differ.
        key = str(resolved.path) if resolved.preset is None else f"{resolved.path}\0{name}"
        self._resolved[key] = resolved
        return Lent(self, key)

    def loaded(self, name: str | None) -> ServedModel | None:
        """Return the model that a name means if it is loaded; raises ModelNotFound for others."""
        self.preload_soon(_SETTLE_S)
        with in_force(self._llm_config):
            path = self.directory.find(name).path
        models = self.fleet.loaded().values()
        return next((served for served in models if served.resolved.path == path), None)

    def listed(self) -> list[Listed]:
        """Return all models that may be asked for."""
        with in_force(self._llm_config):
            return self.directory.listed()

    @contextlib.contextmanager
    def lending(self, name: str | None) -> Iterator[ServedModel]:
        """Lend a model for the length of a block; otherwise as `lend`."""
        lent = self.lend(name)
        try:
            yield lent.model
        finally:
            lent.give_back()

    def _load(self, key: str) -> ServedModel:
        resolved = self._resolved[key]
        name = self.directory.public_name(resolved)
        return ServedModel(
            resolved, name, self.options, self._settings, shared=self.config.shared, say=self._say
        )

    def count(self, change: int) -> None:
        """Note that a request begins or ends; raises QueueFull if no thread would be left."""
        with self._lock:
            if change > 0 and self.most_at_once and self._n_at_once >= self.most_at_once:
                raise QueueFull(
                    f"{self._n_at_once} requests are being answered or waiting, and no more may: "
                    "try again later"
                )
            self._n_at_once += change

    def close(self) -> None:
        """End all engines."""
        self.fleet.close()


class Lent:
    """A model for the length of one request.

    Attributes:
        model: the model.

    Raises:
        LlamaliteError: it can't be loaded, or too many requests are there.
    """

    def __init__(self, site: Site, key: str) -> None:
        self._site, self._key = site, key
        self._is_back = False
        site.count(1)
        try:
            self.model = site.fleet.take(key)
        except BaseException:
            site.count(-1)
            raise

    def give_back(self) -> None:
        """Let it go; later calls do nothing."""
        if not self._is_back:
            self._is_back = True
            self._site.fleet.give_back(self._key)
            self._site.count(-1)


def client_gone(request: falcon.Request) -> Callable[[], bool] | None:
    """Return what says whether the client hung up, where the WSGI server can tell."""
    found: Callable[[], bool] | None = request.env.get("waitress.client_disconnected")
    return found
