"""A model's weights and what its metadata says.

Imports `ffi`, `llamalite.errors` and its own siblings.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from llamalite.core.owned import Owned
from llamalite.core.vocab import Vocab
from llamalite.errors import (
    InvalidParameter,
    ModelError,
    ModelLoadError,
    ModelNotFound,
    SymbolMissing,
)
from llamalite.ffi import native_log
from llamalite.ffi.layouts import Layout
from llamalite.ffi.library import Library
from llamalite.ffi.structs import ProgressCallback
from llamalite.ffi.watched import call_watched


def apply_params(struct: Any, layout: Layout, changes: dict[str, Any], release: str) -> None:
    """Set fields of a params struct by their C names.

    Raises:
        SymbolMissing: this build's struct has no such field.
        InvalidParameter: the value has the wrong type.
    """
    for name, value in changes.items():
        if not layout.has(name):
            raise SymbolMissing(
                f"this libllama ({release}) has no parameter {name}: leave it out, or fetch a "
                "newer build with 'llamalite lib install'"
            )
        if layout.kind_of(name) == "p":
            raise InvalidParameter(f"{name} is a pointer and can't be set here", param=name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidParameter(f"{name} is {value}, which is no number", param=name)
        try:
            setattr(struct, name, value)
        except TypeError:
            raise InvalidParameter(f"{name} can't be {value!r}", param=name) from None


class Model(Owned):
    """A loaded GGUF model.

    Args:
        library: the opened libllama.
        path: the file, or the first of a split model's files.
        on_progress: called with 0.0 to 1.0 while loading; an exception in it (Ctrl-C too) stops
            the load and is raised again here.
        devices: names of the devices to use; None = all.
        params: fields of llama_model_params by their C names, such as n_gpu_layers=0.

    Raises:
        ModelNotFound: there is no such file.
        ModelLoadError: libllama refused it; the message holds its last words.
        SymbolMissing: a parameter is unknown to this build.

    Source: llama_model_load_from_file.
    """

    def __init__(
        self,
        library: Library,
        path: str | os.PathLike[str],
        *,
        on_progress: Callable[[float], None] | None = None,
        devices: Sequence[str] | None = None,
        **params: Any,
    ) -> None:
        self.library = library
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelNotFound(f"there is no model file {self.path}")
        struct = library.model_defaults()
        apply_params(struct, library.model_layout, params, library.release)
        if params.get("no_alloc") or not -1 <= params.get("load_mode", 0) <= 4:
            raise InvalidParameter(
                "no_alloc and unknown load modes can't be used", param="load_mode"
            )
        self.has_vocab_only = bool(params.get("vocab_only"))
        chosen = self._device_list(devices) if devices is not None else None
        if chosen is not None:
            struct.devices = ctypes.addressof(chosen)
        progress = _Progress(on_progress)
        struct.progress_callback = ctypes.cast(progress.callback, ctypes.c_void_p)
        native_log.forget()
        handle = progress.watch(library, os.fsencode(self.path), struct)
        if not handle:
            reason = native_log.recent_errors() or "libllama gave no reason"
            raise ModelLoadError(f"{self.path} can't be loaded: {reason}")
        super().__init__(handle, library.llama_model_free)
        self.vocab = Vocab(self)

    def _device_list(self, names: Sequence[str]) -> Any:
        known = {device.name: device.handle for device in self.library.devices()}
        missing = [name for name in names if name not in known]
        if missing:
            raise ModelLoadError(
                f"there is no device {missing[0]!r}: this library offers {', '.join(known)}"
            )
        return (ctypes.c_void_p * (len(names) + 1))(*[known[name] for name in names], None)

    def _number(self, name: str) -> int:
        return int(getattr(self.library, f"llama_model_{name}")(self.handle))

    @cached_property
    def n_ctx_train(self) -> int:
        """Context length the model was trained with, in tokens."""
        return self._number("n_ctx_train")

    @cached_property
    def n_embd(self) -> int:
        """Width of the hidden state."""
        return self._number("n_embd")

    @cached_property
    def n_embd_out(self) -> int:
        """Width of an output embedding; n_embd on builds before b7639."""
        has = self.library.has("llama_model_n_embd_out")
        return self._number("n_embd_out") if has else self.n_embd

    @cached_property
    def n_layer(self) -> int:
        """Number of layers."""
        return self._number("n_layer")

    @cached_property
    def n_swa(self) -> int:
        """Width of the sliding attention window in tokens; 0 = every token sees all before it."""
        return self._number("n_swa")

    @cached_property
    def n_params(self) -> int:
        """Number of weights."""
        return self._number("n_params")

    @cached_property
    def size_bytes(self) -> int:
        """Size of all tensors."""
        return self._number("size")

    @cached_property
    def n_cls_out(self) -> int:
        """Number of classifier outputs, for models that rank."""
        return self._number("n_cls_out")

    @cached_property
    def has_encoder(self) -> bool:
        """Say whether prompts go through llama_encode first."""
        return bool(self._number("has_encoder"))

    @cached_property
    def has_decoder(self) -> bool:
        """Say whether the model can generate."""
        return bool(self._number("has_decoder"))

    @cached_property
    def is_recurrent(self) -> bool:
        """Say whether its memory is a state that can't be cut (Mamba, RWKV)."""
        return bool(self._number("is_recurrent"))

    @cached_property
    def is_hybrid(self) -> bool:
        """Say whether part of its memory is such a state; False on builds before b6685."""
        has = self.library.has("llama_model_is_hybrid")
        return bool(self._number("is_hybrid")) if has else False

    @cached_property
    def decoder_start_token(self) -> int:
        """Token an encoder-decoder model's answer starts with, or -1."""
        return self._number("decoder_start_token")

    @cached_property
    def description(self) -> str:
        """Libllama's one-line description, such as "llama 134M Q4_1"."""
        buffer = ctypes.create_string_buffer(256)
        self.library.llama_model_desc(self.handle, ctypes.addressof(buffer), 256)
        return buffer.value.decode("utf-8", "replace")

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Scalar GGUF metadata as strings, as libllama reads it; arrays are left out."""
        count = self._number("meta_count")
        by_index = ("llama_model_meta_key_by_index", "llama_model_meta_val_str_by_index")
        return {
            self._meta_string(by_index[0], i): self._meta_string(by_index[1], i)
            for i in range(count)
        }

    def _meta_string(self, function: str, index: int) -> str:
        room = 256
        for _ in range(2):
            buffer = ctypes.create_string_buffer(room)
            address = ctypes.addressof(buffer)
            length = getattr(self.library, function)(self.handle, index, address, room)
            if length < room:
                break
            room = length + 1
        return buffer.value.decode("utf-8", "replace")

    def chat_template(self, name: str | None = None) -> str | None:
        """Return the model's own chat template: the default one, or the one of that name."""
        key = name.encode() if name else None
        found = self.library.llama_model_chat_template(self.handle, key)
        return found.decode("utf-8", "replace") if found else None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as one GGUF file, which appears only when it is whole.

        Raises:
            ModelError: it can't be written there.
        """
        with written_whole(path) as partial, self.in_use() as handle:
            self.library.llama_model_save_to_file(handle, os.fsencode(partial))


@contextlib.contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write beside the target, and rename it there if a file has been written.

    Raises:
        ModelError: the target is no regular file, its folder can't be written, or nothing came.
    """
    target = Path(path)
    partial = target.with_name(f".partial-{os.getpid()}-{target.name[:100]}")
    try:
        if target.exists() and not target.is_file():
            raise ModelError(f"{target} is no regular file: choose another target")
        partial.touch()  # native code only prints that it can't write
        yield partial
        if not partial.stat().st_size:
            raise ModelError(f"nothing could be written to {target}")
        partial.replace(target)
    except OSError as error:
        raise ModelError(f"{target} can't be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


class _Progress:
    """Lets a Python callback watch a load and stop it, by an exception or by Ctrl-C."""

    def __init__(self, on_progress: Callable[[float], None] | None) -> None:
        self._on_progress = on_progress
        self._raised: BaseException | None = None
        self._stop = threading.Event()
        self.callback = ProgressCallback(self._receive)

    def _receive(self, fraction: float, _user: Any) -> bool:
        try:
            if self._on_progress is not None:
                self._on_progress(fraction)
        except BaseException as error:
            self._raised = error
            return False
        return not self._stop.is_set()

    def watch(self, library: Library, path: bytes, struct: Any) -> int | None:
        """Load, and raise what the callback raised once the native code has come back."""
        load, free = library.llama_model_load_from_file, library.llama_model_free
        handle: int | None = call_watched(lambda: load(path, struct), self._stop, free)
        if self._raised is not None:
            if handle:
                free(handle)
            raise self._raised
        return handle
