"""Every exception llamalite raises on purpose, in one tree.

    LlamaliteError
    ├ LibraryError        LibraryNotFound · LibraryIncompatible · AbiMismatch · SymbolMissing
    ├ GGUFError           NotGGUF · UnsupportedVersion · Truncated · Incomplete · BadField
    ├ ModelError          ModelNotFound · AmbiguousFile · ModelLoadError · DoesNotFit
    │                     TokenizeError · TemplateError · AdapterError
    ├ DecodeError         NoKVSlot · Aborted · InvalidBatch · FatalDecode
    ├ RequestError        InvalidParameter · ContextLengthExceeded · ConstraintError · QueueFull
    ├ EngineError         EngineClosed · EngineCrashed
    └ DownloadError       Offline · Unreachable · ChecksumMismatch

Each message is one line that says what happened, to what, and what to do next. Imports the
standard library alone.
"""

from __future__ import annotations

import os


class LlamaliteError(Exception):
    """Base of everything llamalite raises on purpose."""


class LibraryError(LlamaliteError):
    """The native library can't be found, opened or used."""


class LibraryNotFound(LibraryError):
    """No usable libllama lies where one was looked for."""


class LibraryIncompatible(LibraryError):
    """The file can't be loaded here: wrong glibc, architecture or format, or a missing sibling."""


class AbiMismatch(LibraryError):
    """The library's struct layouts are none that llamalite knows; nothing was called with them."""


class SymbolMissing(LibraryError):
    """This build of libllama lacks the function a feature needs; other features still work."""


class GGUFError(LlamaliteError):
    """A GGUF file is malformed.

    Attributes:
        path: the file, as it was given; may be empty for bytes in memory.
        offset: byte offset in the file where reading failed, or None.
    """

    def __init__(
        self, message: str, *, path: str | os.PathLike[str] = "", offset: int | None = None
    ) -> None:
        self.path = os.fspath(path)
        self.offset = offset
        where = f" (at byte {offset})" if offset is not None else ""
        super().__init__(f"{self.path or 'GGUF data'}: {message}{where}")


class NotGGUF(GGUFError):
    """The file doesn't start with GGUF's magic."""


class UnsupportedVersion(GGUFError):
    """The file's GGUF version is not 2 or 3."""


class Truncated(GGUFError):
    """A count or length points past the end of the file."""


class Incomplete(GGUFError):
    """Only the beginning of a file was given, and it goes on behind that.

    Attributes:
        n_needed: bytes of the file, from its beginning, that are needed to get any further.
    """

    def __init__(
        self,
        message: str,
        n_needed: int,
        *,
        path: str | os.PathLike[str] = "",
        offset: int | None = None,
    ) -> None:
        self.n_needed = n_needed
        super().__init__(message, path=path, offset=offset)


class BadField(GGUFError):
    """A key, type, shape or value is not what the format allows."""


class ModelError(LlamaliteError):
    """A model can't be found, loaded or used as asked."""


class ModelNotFound(ModelError):
    """No model answers to that name or path."""


class AmbiguousFile(ModelError):
    """Several models or files match; the message lists them."""


class ModelLoadError(ModelError):
    """libllama refused to load the model or to make a context for it."""


class DoesNotFit(ModelError):
    """The model needs more memory than the device has free."""


class TokenizeError(ModelError):
    """Text can't be tokenized, or a token id isn't in the vocabulary."""


class TemplateError(ModelError):
    """A chat template can't be parsed or rendered, or asked for more than is allowed."""


class AdapterError(ModelError):
    """A LoRA adapter or control vector can't be loaded or applied."""


class DecodeError(LlamaliteError):
    """llama_decode or llama_encode failed.

    Attributes:
        code: libllama's return code.
    """

    def __init__(self, message: str, *, code: int = 0) -> None:
        self.code = code
        super().__init__(message)


class NoKVSlot(DecodeError):
    """The memory has no room for the batch (code 1)."""


class Aborted(DecodeError):
    """The abort callback stopped the computation (code 2)."""


class InvalidBatch(DecodeError):
    """The batch is malformed: found before the call, or refused by libllama (code -1)."""


class FatalDecode(DecodeError):
    """The computation failed (code below -1)."""


class RequestError(LlamaliteError):
    """What was asked for is not possible.

    Attributes:
        param: name of the offending parameter, or None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


class InvalidParameter(RequestError):
    """A parameter has the wrong type or is out of range."""


class ContextLengthExceeded(RequestError):
    """The prompt is longer than the context.

    Attributes:
        n_prompt: tokens in the prompt.
        n_ctx: tokens the context holds.
    """

    def __init__(
        self,
        n_prompt: int,
        n_ctx: int,
        *,
        param: str | None = "prompt",
        message: str | None = None,
    ) -> None:
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx
        super().__init__(
            message
            or f"the prompt has {n_prompt} tokens and the context holds {n_ctx}, of which at least "
            f"one is needed for the answer: shorten the prompt or raise --ctx-size",
            param=param,
        )


class ConstraintError(RequestError):
    """A grammar, schema or regular expression can't be used."""


class QueueFull(RequestError):
    """Too many requests are waiting."""


class EngineError(LlamaliteError):
    """The engine can't take or finish the request."""


class EngineClosed(EngineError):
    """The engine or model was closed."""


class EngineCrashed(EngineError):
    """The engine's process died."""


class DownloadError(LlamaliteError):
    """A file can't be fetched."""


class Offline(DownloadError):
    """A download was needed, but network use is switched off."""


class Unreachable(DownloadError):
    """The server doesn't answer."""


class ChecksumMismatch(DownloadError):
    """What arrived is not what was asked for."""
