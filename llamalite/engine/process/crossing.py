"""Requests, results and errors in the form in which they cross between processes, and back.

An error crosses as the name of its class, its message and its plain fields, and comes back as the
same class of `llamalite.errors`; what isn't one becomes an EngineError. Imports numpy, `wire`,
`llamalite.errors` and what requests are made of.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llamalite import errors
from llamalite.config import SamplingConfig
from llamalite.constraint.spec import Constraint
from llamalite.engine.process.wire import Embed, Problem, Rows, Submit
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.errors import EngineError, InvalidParameter, LlamaliteError

if TYPE_CHECKING:
    from llamalite.engine.request import Tokens

_MOST_TEXT = 4000


def problem_of(error: BaseException) -> Problem:
    """Return the form in which an exception crosses."""
    for kind in type(error).__mro__:
        if getattr(errors, kind.__name__, None) is kind:
            plain = (str, int, float, bool, type(None))
            kept = {name: value for name, value in vars(error).items() if isinstance(value, plain)}
            return Problem(kind.__name__, str(error), kept)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return Problem("EngineError", f"the engine failed within: {text[:_MOST_TEXT]}")


def error_of(problem: Problem) -> LlamaliteError:
    """Return the exception that crossed; its constructor isn't called again."""
    kind = getattr(errors, problem.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, LlamaliteError)):
        kind = EngineError
    error: LlamaliteError = kind.__new__(kind)
    Exception.__init__(error, problem.message)
    vars(error).update(problem.fields)
    return error


def submit_message(number: int, request: GenerationRequest) -> Submit:
    """Return the message that submits a request.

    Raises:
        InvalidParameter: it has logits processors, or its prompt is no row of token ids.
    """
    if request.processors:
        raise InvalidParameter(
            "logits processors are Python functions of this process, and the engine is in "
            "another one: use an Engine in this process",
            param="processors",
        )
    said = _said(request, besides=("prompt", "processors"))
    return Submit(number, _packed(request.prompt, "prompt"), said)


def request_of(message: Submit) -> GenerationRequest:
    """Return the request that a message submits.

    Raises:
        RequestError: it isn't one.
    """
    said = dict(message.fields)
    try:
        if "sampling" in said:
            said["sampling"] = SamplingConfig(**said["sampling"])
        if said.get("constraint") is not None:
            said["constraint"] = Constraint(**said["constraint"])
        if "stop_tokens" in said:
            said["stop_tokens"] = tuple(said["stop_tokens"])
        return GenerationRequest(_unpacked(message.prompt), **said)
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"that is no request: {error}") from None


def embed_message(number: int, request: EmbeddingRequest) -> Embed:
    """Return the message that asks for embeddings.

    Raises:
        InvalidParameter: a text is no row of token ids.
    """
    prompts = [_packed(prompt, "prompts") for prompt in request.prompts]
    return Embed(number, prompts, _said(request, besides=("prompts",)))


def embedding_request_of(message: Embed) -> EmbeddingRequest:
    """Return the request for embeddings in a message.

    Raises:
        RequestError: it isn't one.
    """
    try:
        prompts = [_unpacked(prompt) for prompt in message.prompts]
        return EmbeddingRequest(prompts, **message.fields)
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"that is no request: {error}") from None


def rows_of(array: npt.NDArray[np.float32]) -> Rows:
    """Return the form in which float32[n, width] crosses."""
    return Rows(len(array), np.ascontiguousarray(array, np.float32).tobytes())


def array_of(rows: Rows) -> npt.NDArray[np.float32]:
    """Return the array that crossed, float32[n, width]."""
    flat = np.frombuffer(rows.content, np.float32)
    return flat.reshape(rows.n, -1) if rows.n else flat.reshape(0, 0)


def _said(thing: Any, besides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a dataclass's fields that differ from their defaults, dataclasses in it alike."""
    said = {}
    for spec in fields(thing):
        value = getattr(thing, spec.name)
        if spec.name in besides:
            continue
        if hasattr(value, "__dataclass_fields__"):
            said[spec.name] = _said(value)
        elif value != _default_of(spec):
            said[spec.name] = value
    return said


def _default_of(spec: Field[Any]) -> Any:
    return spec.default if spec.default_factory is MISSING else spec.default_factory()


def _packed(tokens: Tokens, name: str) -> bytes:
    array = np.asarray(tokens)
    if not array.size:
        return b""
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidParameter(f"{name} must be a row of token ids (whole numbers)", param=name)
    if not (array.min() >= -(2**31) and array.max() < 2**31):
        raise InvalidParameter(f"{name} holds a number that is no token id", param=name)
    return array.astype("<i4").tobytes()


def _unpacked(content: bytes) -> npt.NDArray[np.int32]:
    return np.frombuffer(content, "<i4").astype(np.int32)
