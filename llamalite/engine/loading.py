"""From a resolved model to one that can compute: settings, what fits, the library, the weights.

Owns the order of these steps. Doesn't know how names are read or text is generated. Imports
everything below the engine.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamalite.config.layers import Effective, effective
from llamalite.core.adapter import LoraAdapter
from llamalite.core.context import Context
from llamalite.core.model import Model
from llamalite.core.ready import ready_library
from llamalite.engine.facts import EngineFacts
from llamalite.engine.layout import Layout, choose_layout
from llamalite.engine.request import EngineOptions
from llamalite.engine.threads import default_n_threads
from llamalite.errors import BadField, ModelLoadError
from llamalite.ffi.library import Library
from llamalite.gguf import GGUFReader
from llamalite.gguf.sanity import check_runnable
from llamalite.libs.transfer.progress import Say, say_on_stderr
from llamalite.models.fit.cache_size import cache_types
from llamalite.models.fit.machine import this_machine
from llamalite.models.fit.plan import check_fits
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
        params: of a context, as Context takes them.
        adapters: adapters to apply, each with its scale.
        n_ctx: tokens of context that each sequence may have.
        n_gpu_layers: layers on devices.
        threads_are_fixed: whether their number was asked for.
        hold: keeps its files from being removed; to be closed with the model.
        load_s: seconds it took.
    """

    library: Library
    model: Model
    path: Path
    template: ChosenTemplate
    defaults: Effective
    params: dict[str, int]
    adapters: list[tuple[LoraAdapter, float]]
    n_ctx: int
    n_gpu_layers: int
    threads_are_fixed: bool
    hold: Hold
    load_s: float

    def facts(self, context: Context, n_parallel: int) -> EngineFacts:
        """Return what holds for an engine over this model and a context of it."""
        model, devices = self.model, self.library.devices()
        flash_attn = self.params.get("flash_attn_type")
        return EngineFacts(
            model=str(self.path),
            description=model.description,
            library=self.library.release,
            devices=tuple(d.name for d in devices if not d.is_gpu or self.n_gpu_layers),
            n_layer=model.n_layer,
            n_gpu_layers=min(self.n_gpu_layers, model.n_layer + 1),
            n_ctx=self.n_ctx,
            n_ctx_train=model.n_ctx_train,
            n_parallel=n_parallel,
            n_slots=context.n_seq_max,
            n_cells=context.n_ctx,
            kv_unified=context.kv_unified,
            flash_attn=None if flash_attn is None else bool(flash_attn),
            n_vocab=model.vocab.n_tokens,
            n_embd_out=model.n_embd_out,
            n_batch=context.n_batch,
            n_threads=self.params["n_threads"],
            n_threads_batch=self.params["n_threads_batch"],
            can_generate=context.memory.exists and not model.has_encoder,
            load_s=self.load_s,
        )

    def close(self) -> None:
        """Free the model and let its files go."""
        self.model.close()
        self.hold.close()


def load(
    resolved: Resolved,
    given: Mapping[str, Any],
    say: Say | None,
    options: EngineOptions,
    *,
    force: bool = False,
) -> Loaded:
    """Load a model.

    Args:
        resolved: the model.
        given: settings that were asked for, by name; they beat what is configured.
        say: takes a line for everything worth knowing; None for stderr.
        options: how many sequences its context is for, and how they share it.
        force: load it even if it doesn't fit into memory.

    Raises:
        LlamaliteError: see `llamalite.errors`; DoesNotFit with what is needed and what is free.
    """
    started = time.perf_counter()
    tell = say or say_on_stderr
    defaults = effective(given, resolved.names, resolved.preset)
    settings = dict(defaults.settings)
    with GGUFReader(resolved.path) as reader:
        check_runnable(reader)
        template = choose_template(reader.summary.chat_templates, settings.get("chat_template"))
        library = ready_library(say)
        layout = choose_layout(reader, library, settings, options)
        n_gpu_layers = _layers(reader, library, settings, layout, tell, force)
        held = hold(reader.paths)
    try:
        model = Model(
            library,
            resolved.path,
            on_progress=lambda _fraction: None,  # so that Ctrl-C stops a load
            n_gpu_layers=n_gpu_layers,
        )
        try:
            adapters = [(LoraAdapter(model, path), scale) for path, scale in defaults.adapters]
        except BaseException:
            model.close()
            raise
    except BaseException:
        held.close()
        raise
    remember_use(resolved.path)
    _say_context(layout.n_ctx, settings, model.n_ctx_train, tell)
    fixed = settings.get("n_threads") is not None
    n_threads = settings.get("n_threads") or default_n_threads()
    params = {
        **layout.params,
        "n_batch": settings["n_batch"],
        "n_ubatch": min(settings["n_ubatch"], settings["n_batch"]),
        "n_threads": n_threads,
        "n_threads_batch": settings.get("n_threads_batch") or n_threads,
        **cache_types(settings),
    }
    return Loaded(
        library, model, resolved.path, template, defaults, params, adapters, layout.n_ctx,
        n_gpu_layers, fixed, held, time.perf_counter() - started,
    )  # fmt: skip


def _layers(
    reader: GGUFReader,
    library: Library,
    settings: Mapping[str, Any],
    layout: Layout,
    say: Say,
    force: bool,
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
                n_ctx=layout.params["n_ctx"],
                n_batch=settings["n_batch"],
                n_ubatch=settings["n_ubatch"],
                n_gpu_layers=wanted,
                say=say,
                n_seq_max=layout.params["n_seq_max"],
                kv_unified=layout.kv_unified,
                flash_attn=layout.flash_attn is not False,
                **cache_types(settings),
            )
        except BadField as error:
            say(f"whether it fits into memory is not known: {error}")
    if not has_gpu:
        return 0
    return _ALL_LAYERS if wanted is None or wanted < 0 else wanted


def _say_context(n_ctx: int, settings: Mapping[str, Any], trained: int, say: Say) -> None:
    wanted: int | None = settings.get("n_ctx")
    if wanted is None and trained > n_ctx:
        say(f"context: {n_ctx} of the model's {trained} tokens (--ctx-size 0 for all)")
    if wanted is not None and wanted > trained:
        say(f"context: {wanted} tokens, more than the {trained} the model was trained on")
