"""/v1/completions."""

from __future__ import annotations

import time
import uuid
from typing import Any

import falcon

from llamalite.engine.request import GenerationRequest
from llamalite.engine.result import Delta, GenerationResult, TokenLogprobs, Usage
from llamalite.server.answering import Plan, respond
from llamalite.server.body import as_schema, note_unknown, read_json, unknown_fields
from llamalite.server.events import DONE, event
from llamalite.server.openai.answers import finish_reason, usage_of
from llamalite.server.openai.fields import (
    SamplingFields,
    constraint_of,
    count_of,
    refuse_if_said,
    sampling_of,
    wants_usage,
)
from llamalite.server.problems import refuse
from llamalite.server.prompts import PromptField, prompts_of
from llamalite.server.served import ServedModel
from llamalite.server.site import Site
from llamalite.server.timings import timings_of

_DEFAULT_MAX_TOKENS = 16  # OpenAI's
_MOST_LOGPROBS = 5
_MOST_PROMPTS = 128
_CANT: dict[str, tuple[Any, ...]] = {"suffix": ("",)}


class CompletionRequest(SamplingFields, kw_only=True):
    """The body."""

    prompt: PromptField
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None
    response_format: Any = None


class Completions:
    """Continues texts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_post(self, http: falcon.Request, response: falcon.Response) -> None:
        """Continue a prompt, whole or as a stream of events."""
        said = read_json(http, self._site.config.max_body_bytes)
        refuse_if_said(said, _CANT)
        fields = as_schema(said, CompletionRequest)
        strict = self._site.config.strict
        note_unknown(unknown_fields(said, CompletionRequest), response, strict=strict)
        with_usage = wants_usage(fields)
        if fields.best_of not in (None, 1) and fields.best_of != (fields.n or 1):
            raise refuse(400, "best_of isn't supported here: leave it out", param="best_of")

        def plan(served: ServedModel) -> Plan:
            prompts = prompts_of(fields.prompt, served, "prompt", _MOST_PROMPTS)
            requests = [_request(fields, prompt, served) for prompt in prompts]
            return requests, _Completion(fields, served, prompts, with_usage)

        lent = self._site.lend(fields.model)
        respond(http, response, lent, plan, stream=bool(fields.stream))


def _request(
    fields: CompletionRequest, tokens: list[int], served: ServedModel
) -> GenerationRequest:
    logprobs = fields.logprobs
    if logprobs is not None and not 0 <= logprobs <= _MOST_LOGPROBS:
        raise refuse(400, f"logprobs is {logprobs}, not in [0, {_MOST_LOGPROBS}]", param="logprobs")
    max_tokens = _DEFAULT_MAX_TOKENS if fields.max_tokens is None else fields.max_tokens
    return GenerationRequest(
        prompt=tokens,
        sampling=sampling_of(fields, served.sampling, served.vocab, max_tokens),
        n=count_of(fields),
        constraint=constraint_of(fields.response_format, fields),
        logprobs=logprobs,
        prompt_logprobs=logprobs if fields.echo else None,
        cache=fields.cache_prompt is not False,
    )


class _Completion:
    """One answer's JSON."""

    def __init__(
        self,
        fields: CompletionRequest,
        served: ServedModel,
        prompts: list[list[int]],
        with_usage: bool,
    ) -> None:
        self._fields, self._served, self._with_usage = fields, served, with_usage
        self._n, self._prompts = count_of(fields), prompts
        self._about: dict[str, Any] = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": fields.model or served.public_name,
            "system_fingerprint": served.fingerprint,
        }
        self._n_chars: dict[int, int] = {}
        self._usages: dict[int, Usage] = {}

    def whole(self, results: list[GenerationResult]) -> dict[str, Any]:
        choices = [
            self._choice(
                index, self._echo(index) + result.text, result.logprobs,
                result.prompt_logprobs, finish_reason(result.finish_reason),
            )
            for index, result in enumerate(results)
        ]  # fmt: skip
        usages = dict(enumerate(result.usage for result in results))
        if self._fields.timings_per_token:
            self._about["timings"] = timings_of(results[0].usage, results[0].timings)
        return {**self._about, "choices": choices, "usage": usage_of(usages, self._n)}

    def events(self, deltas: list[Delta]) -> bytes:
        """Return the events of some deltas, as one piece to write."""
        pieces = []
        for delta in deltas:
            text = delta.text
            if delta.index not in self._n_chars:
                text = self._echo(delta.index) + text
            reason = None
            if delta.finish_reason is not None:
                self._usages[delta.index] = delta.usage or Usage(0, 0)
                reason = finish_reason(delta.finish_reason)
                if self._fields.timings_per_token and delta.usage and delta.timings:
                    self._about["timings"] = timings_of(delta.usage, delta.timings)
            if text or delta.logprobs or reason is not None:
                choice = self._choice(
                    delta.index, text, delta.logprobs, delta.prompt_logprobs, reason
                )
                chunk = {**self._about, "choices": [choice]}
                pieces.append(event({**chunk, "usage": None} if self._with_usage else chunk))
        return b"".join(pieces)

    def end(self) -> bytes:
        """Return what ends the stream."""
        if not self._with_usage:
            return DONE
        usage = usage_of(self._usages, self._n)
        return event({**self._about, "choices": [], "usage": usage}) + DONE

    def _choice(
        self,
        index: int,
        text: str,
        logprobs: tuple[TokenLogprobs, ...],
        prompt_logprobs: tuple[TokenLogprobs, ...] | None,
        reason: str | None,
    ) -> dict[str, Any]:
        found = None
        if self._fields.logprobs is not None:
            found = self._logprobs(index, prompt_logprobs, logprobs)
        self._n_chars[index] = self._n_chars.get(index, 0) + len(text)
        return {"index": index, "text": text, "logprobs": found, "finish_reason": reason}

    def _logprobs(
        self,
        index: int,
        prompt: tuple[TokenLogprobs, ...] | None,
        answer: tuple[TokenLogprobs, ...],
    ) -> dict[str, Any]:
        tokens: list[str] = []
        values: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        if prompt is not None:  # the first token has nothing before it
            tokens.append(self._text(self._prompts[index // self._n][0]))
            values.append(None)
            tops.append(None)
        for one in (*(prompt or ()), *answer):
            tokens.append(self._text(one.token))
            values.append(max(one.logprob, -9999.0))
            tops.append({self._text(t): max(value, -9999.0) for t, value in one.top})
        offsets, at = [], self._n_chars.get(index, 0)
        for token in tokens:
            offsets.append(at)
            at += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def _echo(self, index: int) -> str:
        prompt = self._prompts[index // self._n]
        return self._served.vocab.detokenize(prompt) if self._fields.echo else ""

    def _text(self, token: int) -> str:
        return self._served.vocab.piece(token, special=True).decode("utf-8", "replace")
