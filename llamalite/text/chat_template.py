"""Chat templates: messages in, prompt text out, equal to what transformers renders.

Owns which of a model's templates is used, what of the caller's values a template sees, and one
clear line for whatever goes wrong. The sandbox is `sandbox`'s; which source to use is `templates`'.
Tokens and BOS are not known here. Imports jinja2, `llamalite.errors` and `llamalite.text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from traceback import walk_tb
from typing import Any

import jinja2

from llamalite.errors import InvalidParameter, TemplateError
from llamalite.text.meter import Meter, OverBudget, measure
from llamalite.text.sandbox import METER, RaisedByTemplate, SandboxEnvironment

MAX_SOURCE_CHARS = 128 * 1024
MAX_INPUT_DEPTH = 100

_MAX_DETAIL_CHARS = 500
_REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")
_ADVICE = "try another template by name, such as chatml"


class ChatTemplate:
    """Render messages as the text a model was trained on.

    Templates are untrusted: they run in a sandbox with bounded time and memory. The bound grows
    with the messages.

    Args:
        source: Jinja text, or several by name. Of several, "tool_use" renders requests with tools,
            and "default" the others.
        bos_token: what the template sees as `bos_token`; "" where there is none.
        eos_token: the same for `eos_token`.
        name: of several, the one to use always.

    Raises:
        TemplateError: the source isn't a template, or `name` isn't among its names. Templates given
            by name are only looked at when they are used.
    """

    def __init__(
        self,
        source: str | Mapping[str, str],
        bos_token: str = "",
        eos_token: str = "",
        *,
        name: str | None = None,
    ) -> None:
        self._sources = {"default": source} if isinstance(source, str) else dict(source)
        self._special_tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._name = None if isinstance(source, str) else name
        self._environment = SandboxEnvironment()
        self._compiled: dict[str, jinja2.Template] = {}
        if isinstance(source, str) or name is not None:
            self._template(self._choose(with_tools=False))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """Return the prompt.

        Args:
            messages: each with a `role`; contents pass as they are. As in transformers, a value of
                None counts as absent, and reasoning is found under each of its usual names.
            tools: JSON schemas of functions.
            add_generation_prompt: whether the prompt ends where the assistant's answer begins.
            kwargs: further variables, such as `documents` or `enable_thinking`; they win over
                `bos_token` and `eos_token`.

        Raises:
            InvalidParameter: messages, tools or a variable are not what a template can take.
            TemplateError: the template refuses the messages, fails, or asks for too much.
        """
        variables: dict[str, Any] = {
            **self._special_tokens,
            "documents": None,
            **{name: _plain(value, name) for name, value in kwargs.items()},
            "messages": _plain_messages(messages),
            "tools": _plain_tools(tools),
            "add_generation_prompt": add_generation_prompt,
        }
        template = self._template(self._choose(with_tools=tools is not None))
        with _one_line(template):
            return _run(template, variables)

    def _choose(self, with_tools: bool) -> str:
        wanted = ("tool_use", "default") if with_tools else ("default",)
        for name in wanted if self._name is None else (self._name,):
            if name in self._sources:
                return name
        known = ", ".join(sorted(self._sources)) or "none"
        raise TemplateError(
            f"the model has no chat template named {self._name or 'default'!r}; "
            f"choose one of those it has ({known}) or {_ADVICE}"
        )

    def _template(self, name: str) -> jinja2.Template:
        if name not in self._compiled:
            source = self._sources[name]
            if len(source) > MAX_SOURCE_CHARS:
                raise TemplateError(
                    f"the chat template is {len(source)} characters long and at most "
                    f"{MAX_SOURCE_CHARS} are allowed; {_ADVICE}"
                )
            with _one_line(None):
                tree = self._environment.metered(source)
                self._compiled[name] = self._environment.from_string(tree)
        return self._compiled[name]


def _run(template: jinja2.Template, variables: dict[str, Any]) -> str:
    meter = Meter(measure(variables))
    token = METER.set(meter)
    try:
        chunks = []
        for chunk in template.generate(variables):
            meter.charge(len(chunk))
            chunks.append(chunk)
        return "".join(chunks)
    finally:
        METER.reset(token)


@contextmanager
def _one_line(template: jinja2.Template | None) -> Iterator[None]:
    """Make one line of whatever a template raises while it is compiled or rendered."""
    try:
        yield
    except Exception as error:
        line = _template_line(template, error)
        where = f" at line {line}" if line else ""
        if isinstance(error, RaisedByTemplate):
            message = f"the chat template refuses these messages{where}: {_detail(error)}"
        elif isinstance(error, (OverBudget, jinja2.exceptions.SecurityError)):
            message = f"the chat template is refused{where}: {_detail(error)}; {_ADVICE}"
        else:
            verb = "can't be parsed" if template is None else "fails"
            message = f"the chat template {verb}{where}: {_detail(error)}; {_ADVICE}"
        raise TemplateError(message) from None


def _detail(error: Exception) -> str:
    """Return what happened, on one line of bounded length."""
    text = str(error)
    if isinstance(error, RecursionError):
        text = "it nests too deeply"
    elif isinstance(error, jinja2.TemplateSyntaxError):
        text = error.message or ""  # str() adds the line and the source
    elif isinstance(error, SyntaxError):
        text = error.msg  # str() adds a line of the Python that Jinja generated
    text = " ".join(text.split())
    if len(text) > _MAX_DETAIL_CHARS:
        text = text[:_MAX_DETAIL_CHARS] + "…"
    return text.rstrip(".") or type(error).__name__


def _template_line(template: jinja2.Template | None, error: Exception) -> int | None:
    """Return the line of the template that was parsed or run last, or None."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    line = None
    for frame, python_line in walk_tb(error.__traceback__):
        owner: jinja2.Template | None = frame.f_globals.get("__jinja_template__")
        if owner is not None and owner is template:
            line = owner.get_corresponding_lineno(python_line)
    return line


def _plain_messages(messages: Any) -> list[dict[str, Any]]:
    if not _is_list(messages) or not messages:
        raise InvalidParameter("messages must be a list of at least one message", param="messages")
    plain = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidParameter(
                f"messages[{i}] must be an object with a role, such as "
                f'{{"role": "user", "content": "…"}}',
                param="messages",
            )
        present = {key: value for key, value in message.items() if value is not None}
        plain.append(_with_reasoning(_plain(present, "messages", f"messages[{i}]")))
    return plain


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Give reasoning under the names templates read, as transformers does."""
    for name in _REASONING_NAMES:
        if message.get(name) is not None:
            reasoning = message[name]
            return {"thinking": reasoning, **message, "reasoning_content": reasoning}
    return message


def _plain_tools(tools: Any) -> list[dict[str, Any]] | None:
    if tools is None:
        return None
    if not _is_list(tools) or not all(isinstance(tool, Mapping) for tool in tools):
        raise InvalidParameter("tools must be a list of JSON schemas of functions", param="tools")
    plain: list[dict[str, Any]] = _plain(tools, "tools")
    return plain


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def _plain(value: Any, param: str, path: str = "", depth: int = 0) -> Any:
    """Copy a value as plain JSON types: a template must not meet objects with methods of their own.

    Raises:
        InvalidParameter: the value is not JSON, or nests too deeply.
    """
    path = path or param
    if depth > MAX_INPUT_DEPTH:
        raise InvalidParameter(f"{param} nests more than {MAX_INPUT_DEPTH} deep", param=param)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return {
            _plain(key, param, path): _plain(item, param, f"{path}.{key}", depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [_plain(item, param, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise InvalidParameter(f"{path} is a {type(value).__name__}, which JSON has not", param=param)
