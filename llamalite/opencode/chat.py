"""opencode's requests and answers of a chat, as OpenAI's API writes them.

Owns their fields. May import `config.fields` and `errors`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from llamalite.config.fields import shown
from llamalite.errors import InvalidParameter


class Role(str, Enum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass
class ChatMessage:
    """One turn of a conversation; its role may be given by name."""

    role: Role
    content: str
    name: str | None = None

    def __post_init__(self) -> None:
        try:
            self.role = Role(self.role)
        except ValueError:
            known = ", ".join(role.value for role in Role)
            raise InvalidParameter(
                f"role must be one of {known}, not {shown(self.role)}", param="role"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Return the message as JSON knows it; a name only if there is one."""
        said = {"role": self.role.value, "content": self.content}
        return said if self.name is None else {**said, "name": self.name}


@dataclass
class ChatCompletionRequest:
    """What is asked of a model."""

    model: str
    messages: list[ChatMessage]
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int | None = None
    stream: bool = False
    stop: list[str] | None = None
    seed: int | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChatCompletionRequest:
        """Read a request from JSON's dict.

        Raises:
            InvalidParameter: a field is unknown or missing, or a message is none.
        """
        known = [spec.name for spec in fields(cls)]
        for name in data:
            if name not in known:
                raise InvalidParameter(
                    f"a request has no field {shown(name)}; they are {', '.join(known)}", param=name
                )
        for name in ("model", "messages"):
            if name not in data:
                raise InvalidParameter(f"the request's {name} is missing", param=name)
        said = dict(data)
        said["messages"] = [_message(item) for item in data["messages"]]
        if isinstance(said.get("stop"), str):
            said["stop"] = [said["stop"]]
        return cls(**said)

    def to_dict(self) -> dict[str, Any]:
        """Return the request as JSON knows it; what is None is left out."""
        said = {**vars(self), "messages": [message.to_dict() for message in self.messages]}
        return {name: value for name, value in said.items() if value is not None}


def _message(item: Any) -> ChatMessage:
    if isinstance(item, ChatMessage):
        return item
    known = {spec.name for spec in fields(ChatMessage)}
    if not isinstance(item, Mapping) or not {"role", "content"} <= set(item) <= known:
        raise InvalidParameter(
            f"a message has a role, a content and perhaps a name; {shown(item)} doesn't fit",
            param="messages",
        )
    return ChatMessage(**item)


def _no_tokens() -> dict[str, int]:
    return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@dataclass
class ChatCompletionResponse:
    """What a model answered; `created` is in seconds since 1970."""

    id: str
    model: str
    choices: list[dict[str, Any]]
    object: str = "chat.completion"
    created: int = field(default_factory=lambda: int(time.time()))
    usage: dict[str, int] = field(default_factory=_no_tokens)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChatCompletionResponse:
        """Read an answer of OpenAI's API; what it says besides is left out."""
        said = {spec.name: data[spec.name] for spec in fields(cls) if spec.name in data}
        counts = _no_tokens()
        said["usage"] = {name: said["usage"][name] for name in counts}
        return cls(**said)

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as JSON knows it."""
        return {
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "choices": self.choices,
            "usage": self.usage,
        }
