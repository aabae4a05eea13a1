"""A model as the web side has it: its engine elsewhere, its words here.

Owns what a request needs besides the engine: vocabulary, template, defaults. Imports everything
below the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from llamalite.config.layers import effective
from llamalite.core.model import Model
from llamalite.core.ready import ready_library
from llamalite.engine.process.client import EngineClient
from llamalite.engine.process.shared import open_shared
from llamalite.engine.process.supervisor import EngineProcess
from llamalite.engine.prompting import Prompting
from llamalite.engine.request import EngineOptions
from llamalite.gguf import GGUFReader
from llamalite.models.resolve import Resolved
from llamalite.text.templates import choose_template

Say = Callable[[str], None]


class ServedModel:
    """A loaded model; any thread.

    Args:
        resolved: the model.
        public_name: what clients call it.
        options: of its engine.
        settings: keyword arguments of `Engine.load`.
        shared: let its engine belong to the host, for several web processes at once.
        say: takes lines while it loads.

    Attributes:
        engine: computes, in a process of its own.
        prompting: makes prompts of texts and messages.
        sampling: how tokens are chosen where a request doesn't say.
        created: when it was loaded, in seconds since 1970.

    Raises:
        LlamaliteError: it can't be loaded.
    """

    def __init__(
        self,
        resolved: Resolved,
        public_name: str,
        options: EngineOptions,
        settings: Mapping[str, Any],
        *,
        shared: bool,
        say: Say,
    ) -> None:
        self.resolved, self.public_name = resolved, public_name
        self.engine = self._open(resolved, options, settings, shared, say)
        try:
            # NOTE: the engine's process has read the file before this one does, in case it crashes.
            self.facts = self.engine.facts
            self._model = Model(ready_library(say), resolved.path, vocab_only=True)
            self.vocab = self._model.vocab
            said = {name: value for name, value in settings.items() if name != "force"}
            defaults = effective(said, resolved.names, resolved.preset)
            with GGUFReader(resolved.path) as reader:
                template = choose_template(
                    reader.summary.chat_templates, defaults.settings.get("chat_template")
                )
            self.prompting = Prompting(self.vocab, template, defaults, say)
            self.sampling = defaults.sampling
        except BaseException:
            self.engine.close()
            raise
        self.created = int(time.time())

    @staticmethod
    def _open(
        resolved: Resolved,
        options: EngineOptions,
        settings: Mapping[str, Any],
        shared: bool,
        say: Say,
    ) -> EngineClient:
        opening: Callable[..., EngineClient] = open_shared if shared else EngineProcess.load
        return opening(resolved, options, say=say, **settings)

    @property
    def fingerprint(self) -> str:
        """Say what computed an answer: another library may answer otherwise."""
        return f"llamalite-{self.facts.library}"

    def close(self) -> None:
        """End its engine; requests under way raise EngineClosed."""
        self.engine.close()
        self._model.close()
