"""/v1/chat/completions."""

from __future__ import annotations

import time
import uuid
from typing import Any

import falcon
import msgspec

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
    refuse_tools,
    sampling_of,
    wants_usage,
)
from llamalite.server.problems import not_supported, refuse
from llamalite.server.served import ServedModel
from llamalite.server.site import Site
from llamalite.server.timings import timings_of

_MOST_TOP_LOGPROBS = 20
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEMPLATES_OWN = {"messages", "tools", "bos_token", "eos_token"}
_CANT: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "verbosity": (),
    "reasoning_effort": (),
}


class ChatMessage(msgspec.Struct, kw_only=True):
    """A message; an assistant's tool calls come with a later version."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Any = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class ChatRequest(SamplingFields, kw_only=True):
    """The body."""

    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    prediction: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    parallel_tool_calls: Any = None
    modalities: Any = None
    audio: Any = None
    web_search_options: Any = None
    verbosity: Any = None
    reasoning_effort: Any = None


class ChatCompletions:
    """Answers conversations."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def on_post(self, http: falcon.Request, response: falcon.Response) -> None:
        """Answer a conversation, whole or as a stream of events."""
        said = read_json(http, self._site.config.max_body_bytes)
        refuse_tools(said)
        refuse_if_said(said, _CANT)
        fields = as_schema(said, ChatRequest)
        note_unknown(unknown_fields(said, ChatRequest), response, strict=self._site.config.strict)
        with_usage = wants_usage(fields)
        plain_messages(fields.messages)  # what is wrong with them needs no model

        def plan(served: ServedModel) -> Plan:
            return [self._request(fields, served)], _Chat(fields, served, with_usage)

        lent = self._site.lend(fields.model)
        respond(http, response, lent, plan, stream=bool(fields.stream))

    def _request(self, fields: ChatRequest, served: ServedModel) -> GenerationRequest:
        if fields.top_logprobs is not None and not fields.logprobs:
            raise refuse(400, "top_logprobs needs logprobs: true", param="top_logprobs")
        top = fields.top_logprobs or 0
        if not 0 <= top <= _MOST_TOP_LOGPROBS:
            raise refuse(
                400, f"top_logprobs is {top}, not in [0, {_MOST_TOP_LOGPROBS}]",
                param="top_logprobs",
            )  # fmt: skip
        given = fields.max_completion_tokens
        max_tokens = fields.max_tokens if given is None else given
        return GenerationRequest(
            prompt=prompt_of(fields.messages, fields.chat_template_kwargs, served),
            sampling=sampling_of(fields, served.sampling, served.vocab, max_tokens),
            n=count_of(fields),
            constraint=constraint_of(fields.response_format, fields),
            logprobs=top if fields.logprobs else None,
            cache=fields.cache_prompt is not False,
        )


def prompt_of(
    messages: list[ChatMessage], kwargs: dict[str, Any] | None, served: ServedModel
) -> list[int]:
    """Return the tokens of a conversation.

    Raises:
        HTTPProblem: a message can't be read.
        TemplateError: the model's template refuses them.
    """
    prompting = served.prompting
    return prompting.of_messages(prompting.opened(plain_messages(messages)), **variables(kwargs))


def variables(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Return what a request gives its template; raises HTTPProblem for what isn't its to give."""
    for name in _TEMPLATES_OWN & set(kwargs or ()):
        param = f"chat_template_kwargs.{name}"
        raise refuse(400, f"{param} can't be given: the request says it elsewhere", param=param)
    return kwargs or {}


def plain_messages(messages: list[ChatMessage]) -> list[dict[str, Any]]:
    """Return messages as templates take them; raises HTTPProblem if one can't be read."""
    if not messages:
        raise refuse(400, "messages is empty: at least one is needed", param="messages")
    return [_plain(message, index) for index, message in enumerate(messages)]


def _plain(message: ChatMessage, index: int) -> dict[str, Any]:
    where = f"messages[{index}]"
    if message.role not in _ROLES:
        raise refuse(
            400, f"{where}.role is {message.role[:40]!r}, none of {', '.join(_ROLES)}",
            param=f"{where}.role",
        )  # fmt: skip
    if message.role in ("tool", "function") or message.tool_calls:
        raise not_supported("tool calling", f"{where}.tool_calls")
    content = message.content
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    if content is None:
        if message.role != "assistant":
            raise refuse(400, f"{where}.content is missing", param=f"{where}.content")
        content = message.refusal or ""
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": content}
    if message.name is not None:
        plain["name"] = message.name
    if message.reasoning_content is not None:
        plain["reasoning_content"] = message.reasoning_content
    return plain


def _part(part: dict[str, Any], where: str) -> str:
    kind = part.get("type")
    text = part.get("refusal" if kind == "refusal" else "text")
    if kind not in ("text", "refusal"):
        raise refuse(
            400, f"{where}.type is {str(kind)[:40]!r}: this model reads text alone",
            param=f"{where}.type",
        )  # fmt: skip
    if not isinstance(text, str):
        raise refuse(400, f"{where} has no text", param=where)
    return text


class _Chat:
    """One answer's JSON."""

    def __init__(self, fields: ChatRequest, served: ServedModel, with_usage: bool) -> None:
        self._fields, self._served, self._with_usage = fields, served, with_usage
        self._about: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk" if fields.stream else "chat.completion",
            "created": int(time.time()),
            "model": fields.model or served.public_name,
            "system_fingerprint": served.fingerprint,
        }
        self._has_begun: set[int] = set()
        self._usages: dict[int, Usage] = {}

    def whole(self, results: list[GenerationResult]) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": result.text, "refusal": None},
                "logprobs": self._logprobs(result.logprobs),
                "finish_reason": finish_reason(result.finish_reason),
            }
            for index, result in enumerate(results)
        ]
        usages = dict(enumerate(result.usage for result in results))
        usage = usage_of(usages, len(results))
        if self._fields.timings_per_token:
            self._about["timings"] = timings_of(results[0].usage, results[0].timings)
        return {**self._about, "choices": choices, "usage": usage}

    def events(self, deltas: list[Delta]) -> bytes:
        """Return the events of some deltas, as one piece to write."""
        pieces = []
        for delta in deltas:
            if delta.index not in self._has_begun:
                self._has_begun.add(delta.index)
                pieces.append(self._chunk(delta.index, {"role": "assistant", "content": ""}))
            if delta.text or delta.logprobs:
                logprobs = self._logprobs(delta.logprobs)
                pieces.append(self._chunk(delta.index, {"content": delta.text}, logprobs))
            if delta.finish_reason is not None:
                self._usages[delta.index] = delta.usage or Usage(0, 0)
                reason = finish_reason(delta.finish_reason)
                if self._fields.timings_per_token and delta.usage and delta.timings:
                    self._about["timings"] = timings_of(delta.usage, delta.timings)
                pieces.append(self._chunk(delta.index, {}, finish=reason))
        return b"".join(pieces)

    def end(self) -> bytes:
        """Return what ends the stream."""
        if not self._with_usage:
            return DONE
        usage = usage_of(self._usages, count_of(self._fields))
        return event({**self._about, "choices": [], "usage": usage}) + DONE

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk: dict[str, Any] = {**self._about, "choices": [choice]}
        if self._with_usage:
            chunk["usage"] = None
        return event(chunk)

    def _logprobs(self, found: tuple[TokenLogprobs, ...]) -> dict[str, Any] | None:
        if not self._fields.logprobs:
            return None
        content = [
            {**self._token(one.token, one.logprob), "top_logprobs": [
                self._token(token, logprob) for token, logprob in one.top
            ]}
            for one in found
        ]  # fmt: skip
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        piece = self._served.vocab.piece(token, special=True)
        # NOTE: JSON has no -inf; OpenAI writes this for what is all but impossible.
        return {
            "token": piece.decode("utf-8", "replace"),
            "logprob": max(logprob, -9999.0),
            "bytes": list(piece),
        }
