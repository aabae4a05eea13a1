"""Errors on the wire: every exception of llamalite as a status and OpenAI's error object.

Owns the one table from exception to status. Imports falcon and `llamalite.errors`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import falcon
import msgspec

from llamalite import errors

_log = logging.getLogger("llamalite.server")

RETRY_AFTER_S = 1

STATUSES: dict[type[errors.LlamaliteError], tuple[int, str, str | None]] = {
    errors.ContextLengthExceeded: (400, "invalid_request_error", "context_length_exceeded"),
    errors.ConstraintError: (400, "invalid_request_error", "invalid_constraint"),
    errors.QueueFull: (503, "unavailable_error", "queue_full"),
    errors.RequestError: (400, "invalid_request_error", None),
    errors.ModelNotFound: (404, "invalid_request_error", "model_not_found"),
    errors.AmbiguousFile: (400, "invalid_request_error", "ambiguous_model"),
    errors.DoesNotFit: (503, "unavailable_error", "model_does_not_fit"),
    errors.TokenizeError: (400, "invalid_request_error", None),
    errors.TemplateError: (400, "invalid_request_error", "template_error"),
    errors.ModelError: (500, "server_error", "model_error"),
    errors.GGUFError: (500, "server_error", "model_damaged"),
    errors.LibraryError: (500, "server_error", "library_error"),
    errors.DecodeError: (500, "server_error", "decode_failed"),
    errors.EngineClosed: (503, "unavailable_error", "engine_closed"),
    errors.EngineCrashed: (500, "server_error", "engine_crashed"),
    errors.EngineError: (500, "server_error", "engine_error"),
    errors.DownloadError: (500, "server_error", "download_error"),
    errors.LlamaliteError: (500, "server_error", None),
}
"""Status, OpenAI's `type` and `code` of each; of its subclasses, too, unless they stand here."""


_LLAMA_KINDS = {
    "context_length_exceeded": "exceed_context_size_error",
    "model_not_found": "not_found_error",
    "not_found": "not_found_error",
}
"""llama-server's `type` where it isn't OpenAI's, by `code`."""
LLAMA_PATHS = frozenset({
    "/health", "/v1/health", "/ready", "/completion", "/completions", "/embedding", "/embeddings",
    "/tokenize", "/detokenize", "/apply-template", "/props", "/slots", "/slots/{number:int}",
})  # fmt: skip
"""Where errors have llama-server's shape."""


@dataclass(frozen=True)
class Problem:
    """What is told of an error.

    Attributes:
        status: of HTTP.
        kind: OpenAI's `type`.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    details: dict[str, Any] | None = None

    def body(self, *, as_llama: bool = False) -> dict[str, Any]:
        """Return OpenAI's error object, or llama-server's."""
        if as_llama:
            kind = _LLAMA_KINDS.get(self.code or "", self.kind)
            error = {"code": self.status, "message": self.message, "type": kind}
            return {"error": {**error, "param": self.param, **(self.details or {})}}
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
            **(self.details or {}),
        }
        return {"error": error}


class HTTPProblem(Exception):
    """Raised to answer with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def refuse(
    status: int,
    message: str,
    *,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> HTTPProblem:
    """Make what is raised to answer with an error."""
    return HTTPProblem(Problem(status, message, kind, code, param))


def not_supported(what: str, param: str | None = None) -> HTTPProblem:
    """Make the 501 of what comes with a later version."""
    return refuse(
        501, f"{what} isn't supported yet", kind="not_supported_error", code="not_supported",
        param=param,
    )  # fmt: skip


def problem_of(error: BaseException) -> Problem:
    """Return what is told of an exception; nothing of the program's inside for unknown ones."""
    if isinstance(error, HTTPProblem):
        return error.problem
    if not isinstance(error, errors.LlamaliteError):
        _log.error("a request failed", exc_info=error)
        return Problem(500, "an internal error: the server's log says more", "server_error")
    kind = next(cls for cls in type(error).__mro__ if cls in STATUSES)
    status, name, code = STATUSES[kind]
    details = None
    if isinstance(error, errors.ContextLengthExceeded):
        details = {"n_prompt_tokens": error.n_prompt, "n_ctx": error.n_ctx}
    return Problem(status, str(error), name, code, getattr(error, "param", None), details)


def answer(request: falcon.Request, response: falcon.Response, problem: Problem) -> None:
    """Answer with a problem."""
    response.status = problem.status
    response.content_type = falcon.MEDIA_JSON
    as_llama = request.uri_template in LLAMA_PATHS
    response.data = msgspec.json.encode(problem.body(as_llama=as_llama))
    if problem.status == 503:
        response.set_header("Retry-After", str(RETRY_AFTER_S))


def on_error(
    request: falcon.Request, response: falcon.Response, error: Exception, _params: Any
) -> None:
    """Answer any exception of a resource."""
    answer(request, response, problem_of(error))


def on_http_error(
    request: falcon.Request, response: falcon.Response, error: falcon.HTTPError, _params: Any
) -> None:
    """Answer what falcon itself refuses, in the same shape."""
    status = error.status_code
    code = {404: "not_found", 405: "method_not_allowed"}.get(status)
    kind = "invalid_request_error" if status < 500 else "server_error"
    message = error.description or error.title or "the request can't be answered"
    answer(request, response, Problem(status, message, kind, code))
    for name, value in dict(error.headers or {}).items():
        response.set_header(name, value)
