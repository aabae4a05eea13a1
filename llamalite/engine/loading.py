"""From a resolved model to one that can compute: settings, what fits, the library, the weights.

Owns the order of these steps. Doesn't know how names are read or text is generated. Imports
everything below the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamalite.config.layers import Effective, effective
from llamalite.core.model import Model
from llamalite.core.ready import ready_library
from llamalite.engine.threads import default_n_threads
from llamalite.errors import BadField, ModelLoadError
from llamalite.ffi.library import Library
from llamalite.gguf import GGUFReader
from llamalite.gguf.sanity import check_runnable
from llamalite.libs.transfer.progress import Say, say_on_stderr
from llamalite.models.fit.cache_size import cache_types
from llamalite.models.fit.machine import this_machine
from llamalite.models.fit.plan import DEFAULT_N_CTX, check_fits, context_length
from llamalite.models.resolve import Resolved
from llamalite.models.store.in_use import Hold, hold
from llamalite.models.store.records import remember_use
from llamalite.text.templates import ChosenTemplate, choose_template

_ALL_LAYERS = 2**31 - 1


@dataclass(frozen=True)
class Loaded:
    """A model in memory, and what holds for it.

    Attributes:
        defaults: what is configured for it; requests may ask for something else.
        params: sizes and threads of a context, as Context takes them.
        hold: keeps its files from being removed; to be closed with the model.
    """

    library: Library
    model: Model
    path: Path
    template: ChosenTemplate
    defaults: Effective
    params: dict[str, int]
    hold: Hold

    def close(self) -> None:
        """Free the model and let its files go."""
        self.model.close()
        self.hold.close()


def load(
    resolved: Resolved, given: Mapping[str, Any], say: Say | None, *, force: bool = False
) -> Loaded:
    """Load a model.

    Args:
        resolved: the model.
        given: settings that were asked for, by name; they beat what is configured.
        say: takes a line for everything worth knowing; None for stderr.
        force: load it even if it doesn't fit into memory.

    Raises:
        LlamaliteError: see `llamalite.errors`; DoesNotFit with what is needed and what is free.
    """
    tell = say or say_on_stderr
    defaults = effective(given, resolved.names, resolved.preset)
    settings = dict(defaults.settings)
    with GGUFReader(resolved.path) as reader:
        check_runnable(reader)
        template = choose_template(reader.summary.chat_templates, settings.get("chat_template"))
        library = ready_library(say)
        n_gpu_layers = _layers(reader, library, settings, tell, force)
        held = hold(reader.paths)
    try:
        model = Model(
            library,
            resolved.path,
            on_progress=lambda _fraction: None,  # so that Ctrl-C stops a load
            n_gpu_layers=n_gpu_layers,
        )
    except BaseException:
        held.close()
        raise
    remember_use(resolved.path)
    params = _context_params(settings, model.n_ctx_train, tell)
    return Loaded(library, model, resolved.path, template, defaults, params, held)


def _layers(
    reader: GGUFReader, library: Library, settings: Mapping[str, Any], say: Say, force: bool
) -> int:
    """Return how many layers go to devices, and refuse what fits nowhere."""
    wanted: int | None = settings.get("n_gpu_layers")
    has_gpu = any(device.is_gpu for device in library.devices())
    if wanted and not has_gpu:
        raise ModelLoadError(
            f"{'all' if wanted < 0 else wanted} layers were to go to a GPU, but this libllama "
            f"({library.release}) sees none: leave --gpu-layers out to use the CPU, or "
            "install a build for your GPU with 'llamalite lib install --backend …'"
        )
    if not force:
        try:
            return check_fits(
                reader,
                machine=this_machine(library),
                n_ctx=settings.get("n_ctx"),
                n_batch=settings["n_batch"],
                n_ubatch=settings["n_ubatch"],
                n_gpu_layers=wanted,
                say=say,
                **cache_types(settings),
            )
        except BadField as error:
            say(f"whether it fits into memory is not known: {error}")
    if not has_gpu:
        return 0
    return _ALL_LAYERS if wanted is None or wanted < 0 else wanted


def _context_params(settings: Mapping[str, Any], trained: int, say: Say) -> dict[str, int]:
    wanted: int | None = settings.get("n_ctx")
    if wanted is None and trained > DEFAULT_N_CTX:
        say(f"context: {DEFAULT_N_CTX} of the model's {trained} tokens (--ctx-size 0 for all)")
    if wanted is not None and wanted > trained:
        say(f"context: {wanted} tokens, more than the {trained} the model was trained on")
    n_threads = settings.get("n_threads") or default_n_threads()
    return {
        "n_ctx": context_length(trained, wanted),
        "n_batch": settings["n_batch"],
        "n_ubatch": min(settings["n_ubatch"], settings["n_batch"]),
        "n_threads": n_threads,
        "n_threads_batch": settings.get("n_threads_batch") or n_threads,
        **cache_types(settings),
    }
