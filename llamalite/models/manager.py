"""ModelManager: what programs do with models, in one object.

Owns how calls wait (at once, or in asyncio) and which configuration holds for them. Everything else
is `pull`'s, `locate`'s and `store`'s. May import everything in `models`, `gguf`, `config` and
`errors`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamalite import config as settings
from llamalite.errors import ModelNotFound
from llamalite.libs.transfer.progress import Say, say_on_stderr

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from llamalite.config import LLMConfig
    from llamalite.gguf import ModelSummary
    from llamalite.models.locate import Located
    from llamalite.models.store.model import InstalledModel

ProgressCallback = Callable[[int, "int | None"], Any]
"""Takes how many bytes are here and how many there are in all, None while that isn't known. The
first never falls."""


class ModelManager:
    """The models on this computer, and those that can be brought to it.

    A model may be called by any name that the command line takes: a path, an alias, a short name, a
    Hub reference, the unique beginning of an installed model's name. Its methods may be called from
    several threads.

    Args:
        config: holds in place of the configuration file and the environment; None = those.
        say: takes a line about whatever is worth knowing, such as which quantization was chosen;
            None = printed to stderr.
    """

    def __init__(self, config: LLMConfig | None = None, *, say: Say | None = None) -> None:
        self._config = config
        self._say = say or say_on_stderr

    @property
    def config(self) -> LLMConfig:
        """The configuration that holds."""
        return self._config or settings.load_config()

    def list_models(self) -> list[InstalledModel]:
        """Return the models on this computer, by name, whichever program fetched them."""
        from llamalite.models.store.installed import installed_models

        with settings.in_force(self._config):
            return installed_models(say=self._say)

    def get_model(self, name: str | os.PathLike[str]) -> InstalledModel | None:
        """Return the installed model that a name means, or None.

        Raises:
            AmbiguousFile: several models answer to the name.
        """
        with self._located(name) as found:
            return found.installed if found else None

    def get_model_path(self, name: str | os.PathLike[str]) -> Path | None:
        """Return a model's file if it is on this computer, of a split model the first part.

        Raises:
            AmbiguousFile: several models answer to the name.
        """
        with self._located(name) as found:
            return found.path if found else None

    def inspect_model(self, name: str | os.PathLike[str]) -> ModelSummary | None:
        """Return what a model's file says about it, or None if it isn't on this computer.

        Raises:
            AmbiguousFile: several models answer to the name.
            GGUFError: the file is damaged.
        """
        from llamalite.gguf import GGUFReader

        path = self.get_model_path(name)
        if path is None:
            return None
        with GGUFReader(path) as reader:
            return reader.summary

    def pull_model_sync(
        self,
        model_id: str,
        filename: str | None = None,
        progress_callback: ProgressCallback | None = None,
    ) -> InstalledModel:
        """Bring a model to this computer, if it isn't there, and return it.

        Args:
            model_id: a short name, `[hf:]owner/repo[:QUANT|/FILE.gguf][@revision]`, an address.
            filename: path of the file to take from the repository; None = by the quantization that
                `model_id` names, or the default one.
            progress_callback: is called from this thread, now and then while nothing comes, too;
                what it raises ends the pull, which a later one goes on with. No async function.
                None = stderr shows how far it is.

        Raises:
            LlamaliteError: as `llamalite.models.pull.pull`.
        """
        from llamalite.models.pull import CallbackReport, Wish, pull
        from llamalite.models.store.finding import find_at

        report = CallbackReport(progress_callback, self._say) if progress_callback else None
        with settings.in_force(self._config):
            pulled = pull(Wish(model_id, file=filename), self._say, report)
        found = find_at(pulled.path, self.list_models())
        if found is None:
            why = "was removed meanwhile: pull again"
            if pulled.path.is_file():
                why = "is a file of your own: import it, to have it among the installed models"
            raise ModelNotFound(f"{pulled.path} {why}")
        return found

    async def pull_model(
        self,
        model_id: str,
        filename: str | None = None,
        progress_callback: ProgressCallback | None = None,
    ) -> InstalledModel:
        """Do what `pull_model_sync` does while other tasks run.

        `progress_callback` is called in the event loop's thread; without it nothing shows how far
        the pull is. Cancelling ends the transfer, too, within a second.
        """
        import asyncio

        courier = _Courier(asyncio.get_running_loop(), progress_callback)
        try:
            model = await asyncio.to_thread(
                self.pull_model_sync, model_id, filename, courier.report
            )
        except asyncio.CancelledError as cancelled:
            courier.failure = courier.failure or cancelled
            raise
        if courier.failure is not None:  # of the last call
            raise courier.failure
        return model

    def remove_model(self, name: str) -> bool:
        """Remove a model, or the alias or preset of that name; False if there was none.

        A file stays as long as another name needs it.

        Raises:
            AmbiguousFile: several models answer to the name.
            ModelError: it is loaded, or can't be removed.
        """
        from llamalite.models.store.removal import remove

        with settings.in_force(self._config):
            try:
                removed = remove([name])
            except ModelNotFound:
                return False
        for removal in removed:
            if removal.note:
                self._say(f"{removal.name}: {removal.note}")
        return True

    def update_last_used(self, name: str | os.PathLike[str]) -> None:
        """Remember that a model was used now; nothing happens if it isn't on this computer."""
        from llamalite.models.store.records import update_record

        path = self.get_model_path(name)
        if path is not None:
            update_record(path, last_used=time.time())

    @contextmanager
    def _located(self, name: str | os.PathLike[str]) -> Iterator[Located | None]:
        """Lend what a name means, None for nothing, while this manager's configuration holds."""
        from llamalite.models.locate import locate

        with settings.in_force(self._config):
            try:
                found = locate(name)
            except ModelNotFound:
                found = None
            yield found


class _Courier:
    """Carries progress from the thread that pulls to the loop, and failures back.

    Attributes:
        failure: raised in the thread at its next report; None = go on.
    """

    def __init__(self, loop: AbstractEventLoop, callback: ProgressCallback | None) -> None:
        self.failure: BaseException | None = None
        self._loop, self._callback = loop, callback

    def report(self, downloaded: int, total: int | None) -> None:
        if self.failure is not None:
            raise self.failure
        if self._callback is not None:
            self._loop.call_soon_threadsafe(self._deliver, downloaded, total)

    def _deliver(self, downloaded: int, total: int | None) -> None:
        from llamalite.models.pull.report import call_back

        if self._callback is None or self.failure is not None:
            return
        try:
            call_back(self._callback, downloaded, total)
        except BaseException as error:
            self.failure = error


_default: ModelManager | None = None


def get_model_manager(config: LLMConfig | None = None) -> ModelManager:
    """Return the program's manager, made on first use and anew whenever `config` is given."""
    global _default
    if _default is None or config is not None:
        _default = ModelManager(config)
    return _default
