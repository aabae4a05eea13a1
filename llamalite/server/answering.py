"""From a request's prompts to its HTTP answer, whole or streamed, whatever API it speaks.

Owns that a model which was lent is given back, however an answer ends. Imports falcon, msgspec, the
engine's handles and its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import falcon
import msgspec

from llamalite.engine.handle import Generation
from llamalite.engine.request import GenerationRequest
from llamalite.engine.result import Delta, GenerationResult
from llamalite.server.events import PING_S, Answers, ClientGone, EventStream
from llamalite.server.problems import refuse
from llamalite.server.served import ServedModel
from llamalite.server.site import Lent, client_gone

Plan = tuple[Sequence[GenerationRequest], "Writer"]


class Writer(Protocol):
    """An API's way to write answers."""

    def whole(self, results: list[GenerationResult]) -> Any:
        """Return what is sent as JSON once all is known."""
        ...

    def events(self, deltas: list[Delta]) -> bytes:
        """Return the events of some deltas, as one piece to write."""
        ...

    def end(self) -> bytes:
        """Return what ends a stream."""
        ...


def respond(
    http: falcon.Request,
    response: falcon.Response,
    lent: Lent,
    plan: Callable[[ServedModel], Plan],
    *,
    stream: bool,
    ping_s: float = PING_S,
) -> None:
    """Answer with what a model generates.

    Args:
        http: the request.
        response: of it.
        lent: the model; given back when all is sent.
        plan: makes of the model what is to be generated and who writes it.
        stream: send events as they come; errors before the first are statuses.
        ping_s: seconds without events after which a comment is sent; below 0 = never.

    Raises:
        HTTPProblem: the request can't be answered.
        LlamaliteError: it failed.
    """
    try:
        requests, writer = plan(lent.model)
        answers = Answers(lent.model.engine, requests, client_gone(http))
        if not stream:
            response.data = msgspec.json.encode(writer.whole(_collected(answers)))
            return
        response.content_type = "text/event-stream"
        response.set_header("Cache-Control", "no-cache")
        response.set_header("X-Accel-Buffering", "no")
        first = _first_of(answers)
        response.stream = EventStream(
            first, answers, writer.events, writer.end, lent.give_back, ping_s
        )
    finally:
        if response.stream is None:
            lent.give_back()


def _first_of(answers: Answers) -> list[Delta]:
    """Wait for the first deltas, so that errors before them are statuses."""
    try:
        while answers.is_open:
            if deltas := answers.take():
                return deltas
    except ClientGone:
        answers.cancel()
        raise _hung_up() from None
    except BaseException:
        answers.cancel()
        raise
    return []


def _collected(answers: Answers) -> list[GenerationResult]:
    whole = Generation(answers.n)
    try:
        while answers.is_open:
            for delta in answers.take():
                whole.put(0, delta)
    except ClientGone:
        raise _hung_up() from None
    finally:
        answers.cancel()
    return whole.results()


def _hung_up() -> Exception:
    return refuse(499, "the client hung up")  # nobody reads it
