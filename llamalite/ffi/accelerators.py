"""Which accelerators this machine offers, asked of their drivers before any libllama is here.

Owns the few calls of the CUDA driver API and of the Vulkan loader that name devices and memory.
Drivers crash and hang, so this is a program for a child process: `python -m
llamalite.ffi.accelerators` prints what each driver answers as a line of JSON, of those alone that
its arguments or its stdin name. Doesn't know which build of libllama suits them. Imports the
standard library alone.

Source: NVIDIA's CUDA driver API reference (cuInit, cuDevice*); the Vulkan 1.0 specification.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

_CUDA_NAMES = {
    "linux": ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"),
    "win32": ("nvcuda.dll",),
}
_VULKAN_NAMES = {"linux": ("libvulkan.so.1",), "win32": ("vulkan-1.dll",)}
_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _INTEGRATED = 75, 76, 18
_VULKAN_KINDS = ("other", "integrated", "discrete", "virtual", "software")
_REAL_KINDS = {"integrated", "discrete", "virtual"}
_DEVICE_LOCAL = 1
_VULKAN_1_0 = 1 << 22


@dataclass(frozen=True)
class Accelerator:
    """A device as its driver describes it.

    Attributes:
        kind: `discrete`, `integrated`, `virtual`, or `software` and `other`, which compute nothing
            faster than the CPU.
        total_bytes: its memory; of an integrated one, what it may use of the machine's.
        capability: CUDA's compute capability, such as "9.0"; "" elsewhere.
    """

    name: str
    kind: str
    total_bytes: int
    capability: str = ""

    @property
    def is_real(self) -> bool:
        """Say whether it is hardware, not a program that stands in for it."""
        return self.kind in _REAL_KINDS


@dataclass(frozen=True)
class Driver:
    """What one driver interface answered.

    Attributes:
        version: the newest CUDA the driver takes, such as "12.8"; "" for Vulkan or where there
            is no driver.
        problem: why there are no devices, or None.
    """

    version: str = ""
    devices: tuple[Accelerator, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Accelerators:
    """What the machine's drivers offer."""

    cuda: Driver
    vulkan: Driver


def read_driver(line: str) -> Driver:
    """Read what this module's program printed about one driver.

    Raises:
        ValueError: it is something else.
    """
    try:
        answer = json.loads(line)
        devices = tuple(Accelerator(**device) for device in answer["devices"])
        return Driver(answer["version"], devices, answer["problem"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"no driver's answer: {error}") from None


class _Refused(Exception):
    """A driver's call failed; the text says which and why."""


def ask_cuda() -> Driver:
    """Ask NVIDIA's driver, in this process."""
    library = _open(_CUDA_NAMES)
    if library is None:
        return Driver(problem="no NVIDIA driver is installed")
    number = ctypes.c_int()
    version = ""
    try:
        if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
            version = f"{number.value // 1000}.{number.value % 1000 // 10}"
        _cuda(library, "cuInit", 0)
        _cuda(library, "cuDeviceGetCount", ctypes.byref(number))
        devices = tuple(_cuda_device(library, index) for index in range(number.value))
    except _Refused as error:
        return Driver(version, problem=str(error))
    return Driver(version, devices, None if devices else "NVIDIA's driver finds no device")


def _cuda_device(library: ctypes.CDLL, index: int) -> Accelerator:
    device, total = ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(256)
    _cuda(library, "cuDeviceGet", ctypes.byref(device), index)
    _cuda(library, "cuDeviceGetName", name, len(name), device)
    _cuda(library, "cuDeviceTotalMem_v2", ctypes.byref(total), device)
    numbers = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _INTEGRATED):
        value = ctypes.c_int()
        _cuda(library, "cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        numbers.append(value.value)
    major, minor, integrated = numbers
    text = name.value.decode("utf-8", "replace")
    kind = "integrated" if integrated else "discrete"
    return Accelerator(text, kind, total.value, f"{major}.{minor}")


def _cuda(library: ctypes.CDLL, function: str, *arguments: Any) -> None:
    code = library[function](*arguments)
    if code != 0:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, ctypes.byref(text))
        said = (text.value or b"").decode("utf-8", "replace")
        raise _Refused(f"NVIDIA's driver fails ({function}: {said or 'error'}, {code})")


class _ApplicationInfo(ctypes.Structure):
    _fields_ = (
        ("sType", ctypes.c_int),
        ("pNext", ctypes.c_void_p),
        ("pApplicationName", ctypes.c_char_p),
        ("applicationVersion", ctypes.c_uint32),
        ("pEngineName", ctypes.c_char_p),
        ("engineVersion", ctypes.c_uint32),
        ("apiVersion", ctypes.c_uint32),
    )


class _InstanceCreateInfo(ctypes.Structure):
    _fields_ = (
        ("sType", ctypes.c_int),
        ("pNext", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("pApplicationInfo", ctypes.POINTER(_ApplicationInfo)),
        ("enabledLayerCount", ctypes.c_uint32),
        ("ppEnabledLayerNames", ctypes.c_void_p),
        ("enabledExtensionCount", ctypes.c_uint32),
        ("ppEnabledExtensionNames", ctypes.c_void_p),
    )


class _DeviceProperties(ctypes.Structure):
    # ABI: limits and sparse properties follow the name, 824 bytes in all; the tail is room enough.
    _fields_ = (
        ("apiVersion", ctypes.c_uint32),
        ("driverVersion", ctypes.c_uint32),
        ("vendorID", ctypes.c_uint32),
        ("deviceID", ctypes.c_uint32),
        ("deviceType", ctypes.c_int),
        ("deviceName", ctypes.c_char * 256),
        ("_rest", ctypes.c_uint64 * 256),
    )


class _MemoryHeap(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint64), ("flags", ctypes.c_uint32))


class _MemoryProperties(ctypes.Structure):
    _fields_ = (
        ("memoryTypeCount", ctypes.c_uint32),
        ("memoryTypes", ctypes.c_uint32 * 2 * 32),
        ("memoryHeapCount", ctypes.c_uint32),
        ("memoryHeaps", _MemoryHeap * 16),
    )


def ask_vulkan() -> Driver:
    """Ask the Vulkan loader, in this process. Nothing is published with Vulkan for macOS."""
    library = _open(_VULKAN_NAMES)
    if library is None:
        return Driver(problem="no Vulkan loader is installed")
    about = _ApplicationInfo(sType=0, pApplicationName=b"llamalite", apiVersion=_VULKAN_1_0)
    create = _InstanceCreateInfo(sType=1, pApplicationInfo=ctypes.pointer(about))
    instance = ctypes.c_void_p()
    try:
        _vulkan(library, "vkCreateInstance", ctypes.byref(create), None, ctypes.byref(instance))
        count = ctypes.c_uint32()
        _vulkan(library, "vkEnumeratePhysicalDevices", instance, ctypes.byref(count), None)
        handles = (ctypes.c_void_p * max(count.value, 1))()
        _vulkan(library, "vkEnumeratePhysicalDevices", instance, ctypes.byref(count), handles)
    except _Refused as error:
        return Driver(problem=str(error))
    # The instance is left to the end of this process: destroying it is one more way to crash.
    devices = tuple(_vulkan_device(library, handle) for handle in handles[: count.value])
    return Driver("", devices, None if devices else "the Vulkan loader finds no device")


def _vulkan_device(library: ctypes.CDLL, handle: int | None) -> Accelerator:
    properties, memory = _DeviceProperties(), _MemoryProperties()
    device = ctypes.c_void_p(handle)
    library.vkGetPhysicalDeviceProperties(device, ctypes.byref(properties))
    library.vkGetPhysicalDeviceMemoryProperties(device, ctypes.byref(memory))
    heaps = memory.memoryHeaps[: min(memory.memoryHeapCount, 16)]
    total = sum(heap.size for heap in heaps if heap.flags & _DEVICE_LOCAL)
    kind = properties.deviceType if 0 <= properties.deviceType < len(_VULKAN_KINDS) else 0
    name = properties.deviceName.decode("utf-8", "replace")
    return Accelerator(name, _VULKAN_KINDS[kind], total)


def _vulkan(library: ctypes.CDLL, function: str, *arguments: Any) -> None:
    code = library[function](*arguments)
    if code < 0:
        reasons = {-9: "no driver for a device is installed", -3: "a driver failed to start"}
        raise _Refused(f"Vulkan offers nothing ({function}: {reasons.get(code, f'error {code}')})")


def _open(names: Mapping[str, tuple[str, ...]]) -> ctypes.CDLL | None:
    for name in names.get(sys.platform, ()):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


ASK: dict[str, Callable[[], Driver]] = {"cuda": ask_cuda, "vulkan": ask_vulkan}
"""Driver interfaces by name."""


def main(names: Sequence[str]) -> int:
    """Print what the named driver interfaces answer, one JSON object a line."""
    for name in names:
        print(json.dumps(asdict(ASK[name]())), flush=True)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:] or ([] if sys.stdin.isatty() else sys.stdin.read().split()) or [*ASK])
    # NOTE: some drivers' own exit handlers hang or crash, and everything is said already.
    os._exit(code)
