"""Sees which bytes a function writes that returns a struct.

A struct too large for registers is returned through a buffer whose address the caller passes. Where
that address can be chosen, the buffer is poisoned twice, and what differs afterwards was not
written. ctypes itself hides the address and doesn't clear the buffer: what it returns past the
struct's end is whatever lay on the stack.

Two routes to a buffer of ours: as an ordinary first argument on x86-64, and through libffi's own
`ffi_call` elsewhere (on AArch64 the address travels in x8, which no argument reaches). Knows
nothing of layouts. Imports the standard library alone.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass

BUFFER_BYTES = 512
"""Larger than any struct that is captured."""

NativeFunction = Callable[..., object]
Route = Callable[[NativeFunction, "ctypes.Array[ctypes.c_uint8]"], None]
"""Calls a function so that the struct it returns is written into the given buffer."""

_LIBFFI_NAMES = {
    "darwin": ("/usr/lib/libffi.dylib",),
    "win32": ("libffi-8.dll", "libffi-7.dll"),
}
_LIBFFI_SONAMES = ("libffi.so.8", "libffi.so.7", "libffi.so.6")

# ABI: FFI_SYSV on AArch64 (it differs from FFI_WIN64 only for variadic functions) and FFI_UNIX64.
_LIBFFI_ABI = {"aarch64": 1, "arm64": 1, "x86_64": 2}
_FFI_TYPE_STRUCT = 13
_FFI_OK = 0


@dataclass(frozen=True)
class Capture:
    """What a `*_default_params` function returned.

    Attributes:
        content: the returned bytes, at least as many as the struct has; garbage follows them.
        written: offsets of bytes the function wrote, or None where that can't be seen.
    """

    content: bytes
    written: frozenset[int] | None


def capture(function: NativeFunction) -> Capture:
    """Call a function that takes nothing and returns a struct, and record its bytes.

    Args:
        function: a ctypes function object of its own (its prototype is set here).
    """
    route = find_route()
    if route is None:
        return Capture(_call_by_value(function), None)
    first, second = (_call_into(route, function, poison) for poison in (0xAA, 0x55))
    written = frozenset(i for i in range(BUFFER_BYTES) if first[i] == second[i])
    return Capture(first, written)


def find_route() -> Route | None:
    """Return the way to pass a result buffer of ours on this machine; None if there is none."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    if platform.machine().lower() in {"x86_64", "amd64"}:
        return as_first_argument
    return through_libffi()


def as_first_argument(function: NativeFunction, buffer: ctypes.Array[ctypes.c_uint8]) -> None:
    """Pass the buffer's address as the hidden first argument of x86-64 (System V, Windows)."""
    function.restype = ctypes.c_void_p  # type: ignore[attr-defined]
    function.argtypes = [ctypes.c_void_p]  # type: ignore[attr-defined]
    function(ctypes.addressof(buffer))


class _FFIType(ctypes.Structure):
    """Source: ffi_type of ffi.h, the same since libffi 3.0."""

    _fields_ = [
        ("size", ctypes.c_size_t),
        ("alignment", ctypes.c_uint16),
        ("type", ctypes.c_uint16),
        ("elements", ctypes.c_void_p),
    ]


class _StructCall:
    """A call that takes nothing and returns BUFFER_BYTES, as libffi is told about it."""

    def __init__(self, libffi: ctypes.CDLL, abi: int) -> None:
        word = ctypes.addressof(ctypes.c_uint8.in_dll(libffi, "ffi_type_uint64"))
        n_words = BUFFER_BYTES // 8
        # All three point to one another, so they live as long as this object.
        self._members = (ctypes.c_void_p * (n_words + 1))(*[word] * n_words, None)
        self._struct = _FFIType(0, 0, _FFI_TYPE_STRUCT, ctypes.addressof(self._members))
        self._cif = (ctypes.c_uint64 * 32)()  # C's takes 32 to 40 bytes
        self._call = libffi["ffi_call"]
        self._call.argtypes, self._call.restype = [ctypes.c_void_p] * 4, None
        prepare = libffi["ffi_prep_cif"]
        prepare.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 2, *[ctypes.c_void_p] * 2]
        self.works = prepare(self._cif, abi, 0, ctypes.addressof(self._struct), None) == _FFI_OK

    def __call__(self, function: NativeFunction, buffer: ctypes.Array[ctypes.c_uint8]) -> None:
        address = ctypes.cast(function, ctypes.c_void_p)  # type: ignore[arg-type]
        self._call(self._cif, address, buffer, None)


def through_libffi() -> Route | None:
    """Return a route through libffi, or None if it can't be found or doesn't know the machine."""
    abi = _LIBFFI_ABI.get(platform.machine().lower())
    libffi = _find_libffi() if abi is not None else None
    if abi is None or libffi is None:
        return None
    call = _StructCall(libffi, abi)
    return call if call.works else None


def _find_libffi() -> ctypes.CDLL | None:
    """Return the libffi that ctypes uses or, where that is linked into Python, the system's."""
    import _ctypes

    names = (getattr(_ctypes, "__file__", None), *_LIBFFI_NAMES.get(sys.platform, _LIBFFI_SONAMES))
    for name in filter(None, names):
        try:
            libffi = ctypes.CDLL(name)
            libffi.ffi_prep_cif, libffi.ffi_call, libffi.ffi_type_uint64  # noqa: B018
        except (OSError, AttributeError):
            continue
        return libffi
    return None


def _call_into(route: Route, function: NativeFunction, poison: int) -> bytes:
    buffer = (ctypes.c_uint8 * BUFFER_BYTES)(*([poison] * BUFFER_BYTES))
    route(function, buffer)
    return bytes(buffer)


def _call_by_value(function: NativeFunction) -> bytes:
    class Opaque(ctypes.Structure):
        _fields_ = [("content", ctypes.c_uint8 * BUFFER_BYTES)]

    function.restype = Opaque  # type: ignore[attr-defined]
    function.argtypes = []  # type: ignore[attr-defined]
    returned = function()
    assert isinstance(returned, Opaque)
    return bytes(returned.content)
