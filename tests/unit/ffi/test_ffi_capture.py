"""Which bytes a function writes, seen by each route, on a C function made of Python."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable

import pytest

from llamalite.ffi import capture
from llamalite.ffi.capture import BUFFER_BYTES, Route

FIELDS = {0: b"\1\2\3\4", 8: b"\xaa\x55", 40: b"\0\0\0\0\0\0\0\0"}
WRITTEN = frozenset(at + i for at, content in FIELDS.items() for i in range(len(content)))

x86_64_unix = pytest.mark.skipif(
    platform.machine() != "x86_64" or os.name == "nt",
    reason="a Python callback can stand for a C function that returns a struct only on x86-64 "
    "System V, where the result's address is an ordinary argument",
)


@pytest.fixture
def native() -> Callable[..., object]:
    """A function that returns a struct of 48 bytes with holes, as a compiler would make it."""

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
    def default_params(result: int) -> int:
        for at, content in FIELDS.items():
            ctypes.memmove(result + at, content, len(content))
        return result

    pointer = ctypes.cast(default_params, ctypes.c_void_p).value
    function = ctypes.CFUNCTYPE(None)(pointer)  # type: ignore[arg-type]
    function.owner = default_params
    return function


@x86_64_unix
@pytest.mark.parametrize(
    "route", [lambda: capture.as_first_argument, capture.through_libffi], ids=["argument", "libffi"]
)
def test_a_route_shows_the_written_bytes(
    route: Callable[[], Route | None],
    native: Callable[..., object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = route()
    assert chosen is not None
    monkeypatch.setattr(capture, "find_route", lambda: chosen)
    seen = capture.capture(native)
    assert seen.written == WRITTEN
    for at, content in FIELDS.items():
        assert seen.content[at : at + len(content)] == content


@x86_64_unix
def test_by_value_only_the_content_is_known(
    native: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "find_route", lambda: None)
    seen = capture.capture(native)
    assert seen.written is None
    assert len(seen.content) == BUFFER_BYTES
    for at, content in FIELDS.items():
        assert seen.content[at : at + len(content)] == content


def test_libffi_is_used_where_the_address_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(capture, "through_libffi", lambda: "libffi")
    assert capture.find_route() == "libffi"


def test_without_libffi_there_is_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(capture, "_find_libffi", lambda: None)
    assert capture.find_route() is None


def test_a_machine_whose_calls_are_unknown_has_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "sparc64")
    assert capture.find_route() is None
