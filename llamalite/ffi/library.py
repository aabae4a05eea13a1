"""Opens libllama, checks its layouts and binds its functions on first use.

One library per process: the dynamic loader would mix two of them up. Nothing is passed by value
before the fingerprint has chosen a layout.

Imports the standard library, `llamalite.errors`, `llamalite.libs` (finding and inspecting) and the
other modules of `ffi`.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamalite.errors import AbiMismatch, LibraryError, LibraryIncompatible, SymbolMissing
from llamalite.ffi import fingerprint, layouts, native_log, prototypes
from llamalite.ffi.capture import Capture, capture
from llamalite.ffi.layouts import Layout
from llamalite.ffi.opening import open_ahead, open_shared
from llamalite.ffi.structs import DeviceType
from llamalite.ffi.variants import NO_REMEDIES, Remedies
from llamalite.ffi.watched import watched

if TYPE_CHECKING:
    from llamalite.libs.files.inspect import LibraryFiles

_IGPU_INSERTED = 6451


@dataclass(frozen=True)
class Registry:
    """The layouts the fingerprint may choose from."""

    model: tuple[Layout, ...] = layouts.MODEL_PARAMS
    context: tuple[Layout, ...] = layouts.CONTEXT_PARAMS
    quantize: tuple[Layout, ...] = layouts.QUANTIZE_PARAMS

    def without(self, *names: str) -> Registry:
        """Return a registry that lacks the named layouts."""
        kept = {
            family: tuple(layout for layout in getattr(self, family) if layout.name not in names)
            for family in ("model", "context", "quantize")
        }
        return replace(self, **kept)


@dataclass(frozen=True)
class Device:
    """A device that ggml's loaded backends offer.

    Attributes:
        name: ggml's name, such as "CPU" or "CUDA0".
        description: the maker's name for it.
        kind: CPU, GPU, IGPU, ACCEL or META, whatever number this build uses for it.
        free_bytes: free memory as the backend reports it.
        total_bytes: all of its memory.
        handle: `ggml_backend_dev_t`.
    """

    name: str
    description: str
    kind: DeviceType
    free_bytes: int
    total_bytes: int
    handle: int

    @property
    def is_gpu(self) -> bool:
        """Say whether layers can be offloaded to it."""
        return self.kind in {DeviceType.GPU, DeviceType.IGPU}


class Library:
    """The opened library: every function of `prototypes` is an attribute.

    A function this build lacks raises SymbolMissing when it is asked for, and nothing before.

    Attributes:
        files: where it lies.
        remedies: what is left out on this machine.
        release: upstream's tag, such as "v0.5.0" or "b5640", or "unknown".
        builds: first and last build number its symbols allow.
        model_layout: layout of llama_model_params.
        context_layout: layout of llama_context_params.
    """

    def __init__(
        self,
        files: LibraryFiles,
        registry: Registry,
        forced: tuple[str, ...],
        remedies: Remedies = NO_REMEDIES,
    ) -> None:
        self.files = files
        self.remedies = remedies
        self._base = open_shared(files.ggml_base)
        self._ggml = open_shared(files.ggml)
        self._llama = open_shared(files.llama)
        self._forced = _forced_layouts(forced, registry)
        self._registry = registry
        exported = frozenset(name for name in layouts.MILESTONES if hasattr(self._llama, name))
        self.builds = layouts.build_range(exported)
        self._model_defaults = self._capture("llama_model_default_params")
        self._context_defaults = self._capture("llama_context_default_params")
        self.model_layout = self._choose("llama_model_params", registry.model, self._model_defaults)
        self.context_layout = self._choose(
            "llama_context_params", registry.context, self._context_defaults
        )
        self._structs = {
            prototypes.MODEL_PARAMS: self.model_layout.padded,
            prototypes.CONTEXT_PARAMS: self.context_layout.padded,
            prototypes.PERF_CONTEXT: self._by_build(layouts.PERF_CONTEXT).padded,
        }
        self.release = files.release or self._version() or "unknown"
        self._start()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        function = self._bind(name)
        setattr(self, name, function)  # PERF: later look-ups don't come here
        return function

    def has(self, name: str) -> bool:
        """Say whether this build exports the function."""
        return hasattr(self._handle_of(name), name)

    def bind_old(self, name: str) -> Any:
        """Bind a function with the arguments it had in older builds."""
        return self._prototype(name, prototypes.OLD_FORMS[name])

    def model_defaults(self) -> Any:
        """Return a fresh llama_model_params with the library's defaults, less its remedies."""
        struct = fingerprint.read_defaults(self.model_layout, self._model_defaults)
        if not self.remedies.use_extra_bufts and self.model_layout.has("use_extra_bufts"):
            struct.use_extra_bufts = False
        return struct

    def context_defaults(self) -> Any:
        """Return a fresh llama_context_params with the library's defaults."""
        return fingerprint.read_defaults(self.context_layout, self._context_defaults)

    def quantize_defaults(self) -> tuple[Layout, Any]:
        """Return layout and a fresh llama_model_quantize_params with the library's defaults.

        Raises:
            AbiMismatch: this build's layout is unknown; only quantizing is affected.
        """
        seen = self._capture("llama_model_quantize_default_params")
        layout = self._choose("llama_model_quantize_params", self._registry.quantize, seen)
        return layout, fingerprint.read_defaults(layout, seen)

    def sampler_interface(self) -> Layout:
        """Return the layout of llama_sampler_i that this build's symbols imply."""
        return self._by_build(layouts.SAMPLER_INTERFACE)

    def devices(self) -> list[Device]:
        """List the devices of all loaded backends, in ggml's order."""
        count = self.ggml_backend_dev_count()
        return [self._device(self.ggml_backend_dev_get(i)) for i in range(count)]

    def _device(self, handle: int) -> Device:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
        kind = self.ggml_backend_dev_type(handle)
        if self.builds[1] < _IGPU_INSERTED and kind == 2:
            kind = DeviceType.ACCEL
        return Device(
            name=(self.ggml_backend_dev_name(handle) or b"").decode(),
            description=(self.ggml_backend_dev_description(handle) or b"").decode(),
            kind=DeviceType(kind),
            free_bytes=free.value,
            total_bytes=total.value,
            handle=handle,
        )

    def _capture(self, name: str) -> Capture:
        try:
            symbol = self._llama[name]  # indexing makes a function object of its own
        except AttributeError:
            raise LibraryIncompatible(
                f"{self.files.llama} exports no {name}: it isn't libllama, or one too old to use; "
                "fetch a tested build with 'llamalite lib install'"
            ) from None
        return capture(symbol)

    def _choose(self, what: str, registry: tuple[Layout, ...], seen: Capture) -> Layout:
        letter = registry[0].name[0] if registry else "?"
        return fingerprint.choose(
            what, registry, seen, self.builds, forced=self._forced.get(letter)
        )

    def _by_build(self, registry: tuple[Layout, ...]) -> Layout:
        first, last = self.builds
        for layout in registry:
            if layout.last_build >= first and layout.first_build <= last:
                return layout
        return registry[-1]

    def _version(self) -> str | None:
        return self.llama_version().decode() if self.has("llama_version") else None

    def _start(self) -> None:
        self.llama_log_set(ctypes.cast(native_log.callback, ctypes.c_void_p), None)
        atexit.register(native_log.silence, self.llama_log_set, self._llama.llama_max_devices)
        # ABI: loading twice registers the devices twice on old builds.
        if self.ggml_backend_dev_count() == 0:
            self._load_backends()
        if self.ggml_backend_dev_count() == 0:
            raise LibraryIncompatible(
                f"no ggml backend in {self.files.folder} can be used on this machine "
                f"({native_log.recent_errors() or 'none was found'}); "
                "fetch a tested build with 'llamalite lib install'"
            )
        self.llama_backend_init()

    def _load_backends(self) -> None:
        if self.remedies.cpu_variant is None:
            open_ahead(self.files.backends)
            self.ggml_backend_load_all_from_path(os.fsencode(self.files.folder))
            return
        chosen = self.remedies.backends(self.files)
        open_ahead(chosen)
        for path in chosen:
            self.ggml_backend_load(os.fsencode(path))

    def _handle_of(self, name: str) -> ctypes.CDLL:
        if name in prototypes.LLAMA:
            return self._llama
        if name in prototypes.GGML:
            return self._ggml
        if name in prototypes.GGML_BASE:
            return self._base
        raise AttributeError(f"llamalite binds no native function {name!r}")

    def _bind(self, name: str) -> Any:
        handle = self._handle_of(name)
        if not hasattr(handle, name):
            raise SymbolMissing(
                f"this libllama ({self.release}) has no {name}: the feature that needs it is not "
                "available with this build; 'llamalite lib install' fetches one that has it"
            )
        table = prototypes.LLAMA | prototypes.GGML | prototypes.GGML_BASE
        return self._prototype(name, table[name])

    def _prototype(self, name: str, types: tuple[str, ...]) -> Any:
        function = self._handle_of(name)[name]
        result, *arguments = (prototypes.resolve(letter, self._structs) for letter in types)
        function.restype = result
        function.argtypes = arguments
        if name not in prototypes.WATCHED:
            return function
        discard = prototypes.WATCHED[name]
        return watched(function, getattr(self, discard) if discard else None)


def _forced_layouts(names: tuple[str, ...], registry: Registry) -> dict[str, str]:
    known = [layout.name for layout in (*registry.model, *registry.context, *registry.quantize)]
    for name in names:
        if name.upper() not in known:
            raise AbiMismatch(
                f"LLAMALITE_LAYOUT asks for {name!r}, which is none of {', '.join(known)}"
            )
    return {name[0].upper(): name.upper() for name in names}


_lock = threading.Lock()
_opened: Library | None = None
_folder: Path | None = None


def opened_library(files: LibraryFiles) -> Library | None:
    """Return this process's library if it is the one in question, or None."""
    return _opened if _opened is not None and _opened.files.folder == files.folder else None


def open_library(
    files: LibraryFiles,
    *,
    registry: Registry | None = None,
    layout: str | None = None,
    remedies: Remedies = NO_REMEDIES,
) -> Library:
    """Open a library, or return the one this process has already opened.

    Args:
        files: what to open, as found by `llamalite.libs`.
        registry: known layouts; all of them by default.
        layout: names of layouts to insist on, such as "M8,C8"; default `LLAMALITE_LAYOUT`.
        remedies: what to leave out of it on this machine.

    Raises:
        LibraryIncompatible: it can't be loaded on this machine.
        AbiMismatch: its layouts are unknown, or not those insisted on.
        LibraryError: this process already uses another library.
    """
    global _opened, _folder
    from llamalite.libs.files.inspect import check_loadable

    with _lock:
        if _opened is not None and _opened.files.folder == files.folder:
            return _opened
        if _folder not in {None, files.folder}:
            raise LibraryError(
                f"this process already loaded the libllama in {_folder} and can't also "
                f"open the one in {files.folder}: start another process for it"
            )
        native_log.configure()
        check_loadable(files)
        names = layout if layout is not None else os.environ.get("LLAMALITE_LAYOUT", "")
        forced = tuple(name.strip() for name in names.split(",") if name.strip())
        _folder = files.folder
        _opened = Library(files, registry or Registry(), forced, remedies)
        return _opened
