"""Which models a server may answer with: those installed here, and those its owner named.

Names come from strangers: one is never a path, and nothing is fetched for it. Owns what a name
means. Imports `models`, `llamalite.config` and `llamalite.errors`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llamalite.config import load_config
from llamalite.errors import AmbiguousFile, ModelNotFound
from llamalite.libs.transfer.progress import Say
from llamalite.models.locate.own_names import follow
from llamalite.models.resolve import Resolved, resolve
from llamalite.models.store.installed import installed_models
from llamalite.models.store.model import InstalledModel, stem_of
from llamalite.models.store.spelled import Spelled

DEFAULT = "default"


@dataclass(frozen=True)
class Listed:
    """A model as `/v1/models` lists it.

    Attributes:
        created: when its file was last changed, in seconds since 1970.
        model: what is known of it, None for a file of the owner's own.
    """

    id: str
    created: int
    model: InstalledModel | None = None


class Directory:
    """Models by the names that requests use; any thread.

    Args:
        named: what the server was started with; the first is the default one. Fetched if needed.
        alias: what to call the first.
        any_name: the default one answers to every name.
        say: takes lines about fetching.
    """

    def __init__(
        self, named: Iterable[str], alias: str | None = None, *, any_name: bool = False, say: Say
    ) -> None:
        self._named = {name: resolve(name, say) for name in named}
        self._called = {given: _public_name(given, it) for given, it in self._named.items()}
        if alias is not None and self._named:
            self._called[next(iter(self._named))] = alias
        self._any_name = any_name

    @property
    def named(self) -> list[Resolved]:
        """The models the server was started with."""
        return list(self._named.values())

    def find(self, name: str | None) -> Resolved:
        """Return the model that a request names.

        Raises:
            ModelNotFound: there is none such here.
            AmbiguousFile: there are several.
        """
        if name is None or not name.strip() or name == DEFAULT or self._any_name:
            return self._default()
        for given, resolved in self._named.items():
            if name in (given, self._called[given], *resolved.names):
                return resolved
        return _installed(name)

    def _default(self) -> Resolved:
        if self._named:
            return next(iter(self._named.values()))
        return _installed(load_config().default_model)

    def public_name(self, resolved: Resolved) -> str:
        """Return what to call a model to clients: nothing of its path."""
        return self._called.get(resolved.name) or _public_name(resolved.name, resolved)

    def listed(self) -> list[Listed]:
        """Return all models that may be asked for, those named first."""
        installed = installed_models(say=lambda line: None)
        by_path = {model.path: model for model in installed}
        found: dict[str, Listed] = {}
        for given, resolved in self._named.items():
            name = self._called[given]
            found[name] = Listed(name, _changed(resolved.path), by_path.get(resolved.path))
        if not self._any_name:
            for model in installed:
                for name in (model.name, *model.names):
                    found.setdefault(name, Listed(name, int(model.modified), model))
        return list(found.values())


def _installed(name: str) -> Resolved:
    chain = follow(name)
    models = installed_models(say=lambda line: None)
    spelled = Spelled(models).whole(chain.names[-1])
    if len(spelled) > 1:
        ones = ", ".join(sorted(model.name for model in spelled))
        raise AmbiguousFile(f"several models are called so: name one of {ones}")
    if spelled:
        (model,) = spelled
        names = tuple(dict.fromkeys((*chain.names, *model.spellings())))
        return Resolved(name, model.path, chain.preset, model.projector, names)
    if len(chain.names) > 1:  # what the owner let a name stand for may be anything that is here
        from llamalite.models.locate import locate

        if locate(name).path is not None:
            return resolve(name)
    raise ModelNotFound(
        f"there is no model {name[:200]!r} here: /v1/models lists those there are, and "
        "'llamalite pull' fetches others"
    )


def _public_name(given: str, resolved: Resolved) -> str:
    is_path = "/" in given or "\\" in given or given.lower().endswith(".gguf")
    if is_path and Path(given).suffix.lower() == ".gguf" and Path(given).exists():
        return stem_of(resolved.path.name)
    return given


def _changed(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
