"""What processes say to each other: messages in msgpack, each after its length.

Owns the messages and their framing. Doesn't know sockets or who is allowed to talk. Imports
msgspec, the standard library, `llamalite.errors` and what a request and an answer are made of.
"""

from __future__ import annotations

import operator
import struct
from typing import Any, BinaryIO

import msgspec

from llamalite.engine.facts import EngineFacts
from llamalite.engine.result import Delta
from llamalite.engine.stats import EngineStats
from llamalite.errors import InvalidParameter

MAX_FRAME_BYTES = 1 << 28
"""Longest message either side takes; a prompt of a million tokens has 4 MB."""

_LENGTH = struct.Struct("<I")


class Message(msgspec.Struct, array_like=True, tag=True, frozen=True):
    """Anything that crosses; its class's name goes first."""


class Problem(msgspec.Struct, array_like=True, frozen=True):
    """An exception on its way; see `crossing`."""

    kind: str
    message: str
    fields: dict[str, Any] = {}


# -- from a client to the engine ---------------------------------------------------------------


class Submit(Message, frozen=True):
    """Take a request: int32 token ids, and the request's other fields where they were set."""

    id: int
    prompt: bytes
    fields: dict[str, Any]


class Embed(Message, frozen=True):
    """Embed texts: int32 token ids of each."""

    id: int
    prompts: list[bytes]
    fields: dict[str, Any]


class Cancel(Message, frozen=True):
    """End a request."""

    id: int


class AskStats(Message, frozen=True):
    """Tell the engine's stats, under this number."""

    id: int


# -- from the engine to a client ---------------------------------------------------------------


class Welcome(Message, frozen=True):
    """First of all: what was loaded."""

    facts: EngineFacts


class Accepted(Message, frozen=True):
    """The engine has taken a request."""

    id: int


class Refused(Message, frozen=True):
    """The engine hasn't taken a request."""

    id: int
    problem: Problem


class Rows(msgspec.Struct, array_like=True, frozen=True):
    """An array: float32, n rows one after another."""

    n: int
    content: bytes


class Step(Message, frozen=True):
    """All that a step brought to one connection."""

    deltas: list[tuple[int, Delta]] = []
    problems: list[tuple[int, Problem]] = []
    embeddings: list[tuple[int, Rows]] = []


class Stats(Message, frozen=True):
    """The engine's stats, as asked for under this number."""

    id: int
    stats: EngineStats


class Farewell(Message, frozen=True):
    """Last of all: why this connection ends, the engine going on without it."""

    reason: str


# -- between the engine's process and the one that started it, over pipes -----------------------


class Start(Message, frozen=True):
    """Load an engine and listen.

    Attributes:
        factory: "module:function" that makes the engine; called with `arguments` and `say`.
        arguments: for the factory, as msgpack knows them.
        folder: for the socket; private.
        name: of the socket in it.
        secret: what clients must know.
        log_level: of the lines to write to stderr.
    """

    factory: str
    arguments: dict[str, Any]
    folder: str
    name: str
    secret: bytes
    log_level: int


class Drain(Message, frozen=True):
    """Take no more requests and finish those there are, within a time."""

    timeout_s: float


class Stop(Message, frozen=True):
    """End in order; all requests end with EngineClosed."""


class Say(Message, frozen=True):
    """A line for a person."""

    line: str


class Ready(Message, frozen=True):
    """The engine is loaded and listens."""

    address: str
    facts: EngineFacts


class Failed(Message, frozen=True):
    """It can't be loaded, or not be opened."""

    problem: Problem


class Drained(Message, frozen=True):
    """Draining is over; whether all requests ended in time."""

    in_time: bool


# -- between a program and the host --------------------------------------------------------------


class Open(Message, frozen=True):
    """Load an engine if it isn't there, and keep it as long as this connection lives."""

    arguments: dict[str, Any]


class Opened(Message, frozen=True):
    """The engine is there; its folder says where."""

    folder: str


ToEngine = Submit | Embed | Cancel | AskStats
FromEngine = Welcome | Accepted | Refused | Step | Stats | Farewell
ToChild = Start | Drain | Stop
FromChild = Say | Ready | Failed | Drained
FromHost = Say | Opened | Failed


def _plain(value: Any) -> Any:
    """Turn what msgpack doesn't know into what it does: numbers of numpy, paths, mappings."""
    if hasattr(value, "__fspath__"):
        return str(value)
    if hasattr(value, "items"):
        return dict(value.items())
    if hasattr(value, "__index__"):
        return operator.index(value)
    if hasattr(value, "__float__"):
        return float(value)
    raise TypeError(f"{value!r} can't be sent to another process")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)


def frame(message: Message) -> bytes:
    """Return a message with its length before it.

    Raises:
        InvalidParameter: something in it can't be sent, or it is too long.
    """
    try:
        content = _encoder.encode(message)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise InvalidParameter(f"this can't be sent to the engine's process: {error}") from None
    if len(content) > MAX_FRAME_BYTES:
        raise InvalidParameter(
            f"a message of {len(content)} bytes is too long for the engine's process: at most "
            f"{MAX_FRAME_BYTES} are sent"
        )
    return _LENGTH.pack(len(content)) + content


class NoMessage(ConnectionError):
    """What came whole is no message of those expected."""


class Messages:
    """Reads messages of some kinds from a stream.

    Args:
        stream: buffered, blocking.
        kinds: a union of Message classes; others are refused.
    """

    def __init__(self, stream: BinaryIO, kinds: Any) -> None:
        self._stream = stream
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(kinds)

    def read(self) -> Any:
        """Wait for the next message; None at the end of the stream.

        Raises:
            ConnectionError: the stream breaks off, or what comes is no message.
        """
        try:
            head = self._stream.read(_LENGTH.size)
            if not head:
                return None
            if len(head) < _LENGTH.size:
                raise ConnectionError("the connection broke off within a message")
            (length,) = _LENGTH.unpack(head)
            if length > MAX_FRAME_BYTES:
                raise ConnectionError(f"a message of {length} bytes is announced, too many")
            content = self._stream.read(length)
        except (OSError, ValueError) as error:  # ValueError: closed by another thread
            raise ConnectionError(f"the connection broke: {error}") from None
        if len(content) < length:
            raise ConnectionError("the connection broke off within a message")
        try:
            return self._decoder.decode(content)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise NoMessage(f"what came is no message: {error}") from None
