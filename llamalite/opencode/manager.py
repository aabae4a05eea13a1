"""opencode's ModelManager and ModelInfo: llamalite's manager under other names.

May import `models`, `config` and `errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamalite.models import manager
from llamalite.opencode.metadata import GGUFMetadata
from llamalite.opencode.settings import LLMConfig, ModelSource

if TYPE_CHECKING:
    from llamalite.models.store.model import InstalledModel

_UNIT = 1024


class ModelStatus(str, Enum):
    """Whether a model can be used; what llamalite lists is READY."""

    READY = "ready"
    DOWNLOADING = "downloading"
    ERROR = "error"
    NOT_FOUND = "not_found"


@dataclass
class ModelInfo:
    """A model on this computer; `size` is in bytes, of all its files."""

    name: str
    path: Path
    size: int
    status: ModelStatus
    metadata: GGUFMetadata | None = None
    source: ModelSource = ModelSource.LOCAL
    downloaded_at: datetime | None = None
    last_used: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON knows them, and the size as people read it."""
        return {
            "name": self.name,
            "path": str(self.path),
            "size": self.size,
            "size_formatted": _size(self.size),
            "status": self.status.value,
            "source": self.source.value,
            "metadata": self.metadata and self.metadata.model_dump(mode="json"),
            "downloaded_at": self.downloaded_at and self.downloaded_at.isoformat(),
            "last_used": self.last_used and self.last_used.isoformat(),
        }


def _size(n_bytes: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < _UNIT:
            return f"{n_bytes:.1f} {unit}"
        n_bytes /= _UNIT
    return f"{n_bytes:.1f} TB"


def _info(model: InstalledModel) -> ModelInfo:
    is_fetched = model.source in {"hub", "url", "wheel"}
    return ModelInfo(
        name=model.name,
        path=model.path,
        size=model.n_bytes,
        status=ModelStatus.READY,
        source=ModelSource.HUGGINGFACE if model.source == "hub" else ModelSource.LOCAL,
        downloaded_at=datetime.fromtimestamp(model.modified) if is_fetched else None,
        last_used=None if model.last_used is None else datetime.fromtimestamp(model.last_used),
    )


class ModelManager:
    """The models on this computer, under opencode's names.

    Args:
        config: its `models_dir` and `aliases` hold; None = llamalite's own configuration.
    """

    def __init__(self, config: LLMConfig | None = None) -> None:
        self._manager = manager.ModelManager(config.to_llamalite() if config else None)

    def list_models(self) -> list[ModelInfo]:
        """Return the models on this computer, by name."""
        return [_info(model) for model in self._manager.list_models()]

    def get_model(self, name: str) -> ModelInfo | None:
        """Return the installed model that a name means, or None.

        Raises:
            AmbiguousFile: several models answer to the name.
        """
        model = self._manager.get_model(name)
        return _info(model) if model else None

    async def pull_model(
        self,
        model_id: str,
        filename: str | None = None,
        progress_callback: Callable[[int, int], Any] | None = None,
    ) -> ModelInfo:
        """Bring a model to this computer, if it isn't there, and return it.

        Args:
            model_id: as `llamalite pull` takes it, such as "owner/repo-GGUF".
            filename: the file to take from the repository; None = the default quantization.
            progress_callback: takes the bytes that are here and those there are in all, in the
                event loop's thread. The first never falls; while the second isn't known, it isn't
                called.

        Raises:
            LlamaliteError: it can't be fetched; the message says why.
        """

        def report(downloaded: int, total: int | None) -> None:
            if progress_callback is not None and total is not None:
                progress_callback(downloaded, total)

        return _info(await self._manager.pull_model(model_id, filename, report))

    def inspect_model(self, name: str) -> GGUFMetadata | None:
        """Return what a model's file says about it, or None if it isn't on this computer.

        Raises:
            GGUFError: the file is damaged.
        """
        path = self._manager.get_model_path(name)
        return GGUFMetadata.from_gguf_file(path) if path else None

    def remove_model(self, name: str) -> bool:
        """Remove a model; False if there was none.

        Raises:
            ModelError: it is loaded, or can't be removed.
        """
        return self._manager.remove_model(name)

    def get_model_path(self, name: str) -> Path | None:
        """Return a model's file if it is on this computer."""
        return self._manager.get_model_path(name)

    def update_last_used(self, name: str) -> None:
        """Remember that a model was used now; nothing happens if it isn't on this computer."""
        self._manager.update_last_used(name)


_default: ModelManager | None = None


def get_model_manager(config: LLMConfig | None = None) -> ModelManager:
    """Return the program's manager, made on first use and anew whenever `config` is given."""
    global _default
    if _default is None or config is not None:
        _default = ModelManager(config)
    return _default
