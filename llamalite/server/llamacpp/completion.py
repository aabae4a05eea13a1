"""/completion, /completions: llama-server's own way to continue texts.

Source: llama.cpp tools/server/README.md (b11434).
"""

from __future__ import annotations

from typing import Any

import falcon
import msgspec

from llamalite.config import SamplingConfig
from llamalite.engine.request import GenerationRequest
from llamalite.engine.result import Delta, GenerationResult, TokenLogprobs
from llamalite.server.answering import Plan, respond
from llamalite.server.body import as_schema, note_unknown, read_json, unknown_fields
from llamalite.server.events import PING_S, event
from llamalite.server.llamacpp.settings import generation_settings
from llamalite.server.openai.answers import finish_reason
from llamalite.server.openai.fields import (
    SamplingFields,
    constraint_of,
    count_of,
    refuse_if_said,
    sampling_of,
)
from llamalite.server.prompts import PromptField, prompts_of
from llamalite.server.served import ServedModel
from llamalite.server.site import Site
from llamalite.server.timings import timings_of

_MOST_PROMPTS = 128
_CANT: dict[str, tuple[Any, ...]] = {
    "n_indent": (0,),
    "t_max_predict_ms": (0,),
    "id_slot": (-1,),
    "post_sampling_probs": (False,),
    "return_progress": (False,),
    "lora": ([],),
    "image_data": ([],),
}


class CompletionFields(SamplingFields, kw_only=True):
    """The body."""

    prompt: PromptField
    n_predict: int | None = None
    n_cmpl: int | None = None
    n_probs: int | None = None
    return_tokens: bool | None = None
    response_fields: list[str] | None = None
    sse_ping_interval: float | None = None
    n_indent: Any = None
    t_max_predict_ms: Any = None
    id_slot: Any = None
    post_sampling_probs: Any = None
    return_progress: Any = None
    lora: Any = None
    image_data: Any = None
    # They say how a cache is kept, or what happens where contexts are shifted: never here.
    n_keep: Any = None
    n_discard: Any = None
    n_cache_reuse: Any = None


class Completion:
    """Continues texts."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_post(self, http: falcon.Request, response: falcon.Response) -> None:
        """Continue prompts, whole or as a stream of events."""
        said = read_json(http, self._site.config.max_body_bytes)
        refuse_if_said(said, _CANT)
        fields = as_schema(said, CompletionFields)
        strict = self._site.config.strict
        note_unknown(unknown_fields(said, CompletionFields), response, strict=strict)
        if fields.n is None:
            fields.n = fields.n_cmpl

        def plan(served: ServedModel) -> Plan:
            limit = fields.max_tokens if fields.n_predict is None else fields.n_predict
            sampling = sampling_of(fields, served.sampling, served.vocab, limit)
            prompts = prompts_of(fields.prompt, served, "prompt", _MOST_PROMPTS)
            requests = [_request(fields, prompt, sampling) for prompt in prompts]
            return requests, _Writer(fields, served, prompts, sampling)

        ping_s = PING_S if fields.sse_ping_interval is None else fields.sse_ping_interval
        lent = self._site.lend(fields.model)
        respond(http, response, lent, plan, stream=bool(fields.stream), ping_s=ping_s)


def _request(
    fields: CompletionFields, prompt: list[int], sampling: SamplingConfig
) -> GenerationRequest:
    return GenerationRequest(
        prompt=prompt,
        sampling=sampling,
        n=count_of(fields),
        constraint=constraint_of(None, fields),
        logprobs=fields.n_probs or None,
        cache=fields.cache_prompt is not False,
    )


class _Writer:
    """One request's JSON."""

    def __init__(
        self,
        fields: CompletionFields,
        served: ServedModel,
        prompts: list[list[int]],
        sampling: SamplingConfig,
    ) -> None:
        self._fields, self._served, self._prompts = fields, served, prompts
        self._n = count_of(fields)
        self._settings = generation_settings(sampling, served, stream=bool(fields.stream))
        self._settings["n_probs"] = fields.n_probs or 0
        self._n_tokens: dict[int, int] = {}
        self._has_line: set[int] = set()

    def whole(self, results: list[GenerationResult]) -> Any:
        found = []
        for index, result in enumerate(results):
            self._has_line |= {index} if "\n" in result.text else set()
            said = {
                "index": index,
                "content": result.text,
                "tokens": result.tokens if self._fields.return_tokens else [],
                **self._ending(index, result),
            }
            if self._fields.n_probs:
                said["completion_probabilities"] = self._probabilities(result.logprobs)
            found.append(self._chosen(said))
        is_one = len(found) == 1 and _is_single(self._fields.prompt)
        return found[0] if is_one else found

    def events(self, deltas: list[Delta]) -> bytes:
        """Return the events of some deltas, as one piece to write."""
        return b"".join(event(self._event(delta)) for delta in deltas)

    def end(self) -> bytes:
        """Return nothing: the last event says `stop`."""
        return b""

    def _event(self, delta: Delta) -> dict[str, Any]:
        index = delta.index
        self._n_tokens[index] = self._n_tokens.get(index, 0) + len(delta.tokens)
        if "\n" in delta.text:
            self._has_line.add(index)
        said: dict[str, Any] = {
            "index": index,
            "content": delta.text,
            "tokens": list(delta.tokens),
            "stop": False,
        }
        if self._fields.n_probs and delta.logprobs:
            said["completion_probabilities"] = self._probabilities(delta.logprobs)
        if delta.finish_reason is None:
            return said
        return self._chosen({**said, **self._ending(index, delta)})

    def _ending(self, index: int, end: Delta | GenerationResult) -> dict[str, Any]:
        """Return what is said once an answer is complete."""
        finish_reason(end.finish_reason or "")  # raises where a constraint left no token
        usage, timings = end.usage, end.timings
        assert usage is not None
        assert timings is not None
        word = end.stop if isinstance(end.stop, str) else ""
        kinds = {"stop": "word" if word else "eos", "cancelled": "none"}
        prompt = self._prompts[index // self._n]
        return {
            "id_slot": -1,
            "stop": True,
            "model": self._fields.model or self._served.public_name,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "tokens_cached": usage.cached_tokens,
            "generation_settings": self._settings,
            "prompt": self._served.vocab.detokenize(prompt),
            "has_new_line": index in self._has_line,
            "truncated": False,
            "stop_type": kinds.get(end.finish_reason or "", "limit"),
            "stopping_word": word,
            "timings": timings_of(usage, timings),
        }

    def _chosen(self, said: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that `response_fields` names, those with a slash taken out."""
        if not self._fields.response_fields:
            return said
        chosen: dict[str, Any] = {}
        for path in self._fields.response_fields:
            value: Any = said
            for name in path.split("/"):
                value = value.get(name, _ABSENT) if isinstance(value, dict) else _ABSENT
            if value is not _ABSENT:
                chosen[path.rpartition("/")[2]] = value
        return chosen

    def _probabilities(self, found: tuple[TokenLogprobs, ...]) -> list[dict[str, Any]]:
        return [
            {**self._token(one.token, one.logprob), "top_logprobs": [
                self._token(token, logprob) for token, logprob in one.top
            ]}
            for one in found
        ]  # fmt: skip

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        piece = self._served.vocab.piece(token, special=True)
        return {
            "id": token,
            "token": piece.decode("utf-8", "replace"),
            "bytes": list(piece),
            "logprob": max(logprob, -9999.0),
        }


_ABSENT = msgspec.UNSET


def _is_single(prompt: PromptField) -> bool:
    return not isinstance(prompt, list) or any(isinstance(item, int) for item in prompt)
