"""Which backend's build of libllama suits a machine, and why.

Owns the order of preference and what is said about it. Doesn't know where builds come from. Opens
no library: drivers are asked in child processes. Imports the standard library, `llamalite.config`,
`llamalite.errors`, `core.child`, `ffi.accelerators` and `llamalite.libs`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamalite import config
from llamalite.core.child import Child
from llamalite.errors import DownloadError, LibraryError, LlamaliteError, Offline
from llamalite.ffi.accelerators import Accelerator, Accelerators, Driver, read_driver
from llamalite.libs.find import Installed
from llamalite.libs.install import install
from llamalite.libs.platforms import Platform, current_platform, is_here
from llamalite.libs.sources.plan import plan
from llamalite.libs.sources.releases import PINNED
from llamalite.libs.staging import Place
from llamalite.libs.transfer.progress import say_on_stderr

VARIABLE = "LLAMALITE_BACKEND"

_MODULE = "llamalite.ffi.accelerators"
_DRIVER_LIMIT_S = 10.0
_OLDEST_CUDA = 12
_OLDEST_CAPABILITY = 5.0


@dataclass(frozen=True)
class BackendChoice:
    """A backend to try.

    Attributes:
        backend: `cpu`, `cuda`, `vulkan`, `metal`, …
        reason: why this one, as part of a sentence.
        asked: True if it was asked for by name, False if it was picked.
    """

    backend: str
    reason: str
    asked: bool = False


def choose_backends(
    platform: Platform | None = None,
    published: Collection[str] | None = None,
    requested: str | None = None,
    accelerators: Accelerators | None = None,
) -> list[BackendChoice]:
    """Return the backends to try, the best first; `auto` always ends with `cpu`.

    Args:
        platform: which the build is for; None for this one.
        published: names of backends that exist for it, as `cuda` or `cuda-12.8`; None for those of
            the pinned release.
        requested: a backend's name, which is then the only choice, or `auto`; None for
            `LLAMALITE_BACKEND`, else `auto`.
        accelerators: what the machine has; None to ask its drivers, which takes up to ten seconds.

    Raises:
        LibraryIncompatible: no platform was given and libllama isn't built for this one.
    """
    requested = config.requested_backend(requested)
    if requested != config.AUTO_BACKEND:
        return [BackendChoice(requested, "it was asked for", asked=True)]
    platform = platform or current_platform()
    if published is None:
        published = PINNED.backends(str(platform))
    if platform.os == "macos" and "metal" in published:
        return [
            BackendChoice("metal", "every Mac with an Apple chip has an Apple GPU"),
            BackendChoice("cpu", "it runs everywhere"),
        ]
    if accelerators is None:
        if not is_here(platform):
            there = f"what a {platform} machine has can't be seen from here"
            return [BackendChoice("cpu", there)]
        if platform.os == "macos":
            nothing = "nothing else is published for Macs with an Intel processor"
            return [BackendChoice("cpu", nothing)]
        accelerators = find_accelerators()
    choices, missing = [], []
    for backend, (found, why) in (
        ("cuda", _cuda(accelerators.cuda)),
        ("vulkan", _vulkan(accelerators.vulkan)),
    ):
        if found and not _is_published(backend, published):
            missing.append(f"{why}, but there is no {backend} build for {platform}")
        elif found:
            choices.append(BackendChoice(backend, why))
        else:
            missing.append(why)
    return [*choices, BackendChoice("cpu", _why_cpu(choices, missing))]


def install_best(
    say: Callable[[str], None] | None,
    choices: Sequence[BackendChoice],
    accept: Callable[[BackendChoice, Installed], None] | None = None,
    **how: Any,
) -> Installed:
    """Install the first choice that can be had and that works here.

    A choice that fails is said in one line before the next is tried.

    Args:
        say: takes lines for a person; None for stderr, with a bar on a terminal.
        choices: as `choose_backends` returns them.
        accept: called with each install but the last possible one; raises LibraryError if it
            doesn't work here.
        how: further arguments of `llamalite.libs.install.install`.

    Raises:
        LibraryError, DownloadError: as `install`, about the last choice; `Offline` about the first.
    """
    tell = say or say_on_stderr
    failures: list[LibraryError | DownloadError] = []
    for position, choice in enumerate(choices):
        if not choice.asked and _is_to_be_fetched(choice.backend, **how):
            tell(f"backend {choice.backend}: {choice.reason}")
        # A picked backend must work; one asked for may be meant for where a driver will be.
        strict = not choice.asked and choice.backend != "cpu"
        is_last = position + 1 == len(choices)
        try:
            installed = install(choice.backend, say=say, strict_backend=strict, **how)
            if accept is not None and not is_last:
                accept(choice, installed)
            return installed
        except (LibraryError, DownloadError) as error:
            failures.append(error)
            if not is_last:
                tell(
                    f"backend {choice.backend} can't be used ({error}); trying "
                    f"{choices[position + 1].backend}; later: "
                    f"'llamalite lib install --backend={choice.backend}'"
                )
    raise next((error for error in failures if isinstance(error, Offline)), failures[-1])


def _is_to_be_fetched(
    backend: str,
    platform: Platform | None = None,
    dest: Path | None = None,
    release: str | None = None,
    sources: Sequence[str] | None = None,
    **_: Any,
) -> bool:
    """Say whether `install`, called with the like, would get as far as fetching something."""
    try:
        platform = platform or current_platform()
        ways = plan(PINNED, release, platform, backend, sources)
        place = Place(dest.absolute() if dest is not None else None, platform)
        return not config.is_offline() and not any(place.present(way) for way in ways)
    except (LlamaliteError, OSError):
        return False  # it will say so itself


def find_accelerators(limit_s: float = _DRIVER_LIMIT_S) -> Accelerators:
    """Ask the machine's drivers what they offer; never raises.

    Args:
        limit_s: for all together; a driver that takes longer is reported as not answering.
    """
    # One process each, side by side: a driver that crashes or hangs spoils no other's answer.
    children = {"NVIDIA's driver": _start("cuda"), "the Vulkan driver": _start("vulkan")}
    deadline = time.monotonic() + limit_s
    cuda, vulkan = (_answer(name, child, deadline) for name, child in children.items())
    return Accelerators(cuda, vulkan)


def _start(driver: str) -> Child | None:
    try:
        return Child(_MODULE, driver)
    except OSError:
        return None


def _answer(name: str, child: Child | None, deadline: float) -> Driver:
    if child is None:
        return Driver(problem=f"no process could be started to ask {name} in")
    with contextlib.closing(child):
        try:
            for line in child.lines(max(deadline - time.monotonic(), 0.1)):
                with contextlib.suppress(ValueError):  # drivers print too
                    return read_driver(line)
        except TimeoutError:
            return Driver(problem=f"{name} does not answer")
        how = "; ".join(filter(None, [child.ending(), child.complaint()]))
        return Driver(problem=f"the process that asked {name} ended without an answer ({how})")


def _is_published(backend: str, published: Collection[str]) -> bool:
    return any(name.partition("-")[0] == backend for name in published)


def _cuda(driver: Driver) -> tuple[bool, str]:
    if not driver.devices:
        return False, driver.problem or "NVIDIA's driver finds no device"
    device = max(driver.devices, key=_capability)
    named = f"{device.name} with NVIDIA's driver for CUDA {driver.version}"
    if int(driver.version.partition(".")[0] or 0) < _OLDEST_CUDA:
        return False, f"{named}, older than the {_OLDEST_CUDA} that is needed"
    if _capability(device) < _OLDEST_CAPABILITY:
        return False, f"{device.name} is too old (compute capability {device.capability})"
    return True, named


def _capability(device: Accelerator) -> float:
    major, _, minor = device.capability.partition(".")
    return int(major or 0) + int(minor or 0) / 10


def _vulkan(driver: Driver) -> tuple[bool, str]:
    real = [device for device in driver.devices if device.is_real]
    if real:
        order = ("discrete", "virtual", "integrated")
        best = min(real, key=lambda device: order.index(device.kind))
        return True, f"{best.name}, {best.kind} GPU with Vulkan"
    if driver.devices:
        names = ", ".join(device.name for device in driver.devices)
        return False, f"Vulkan offers only {names}, which is no GPU"
    return False, driver.problem or "the Vulkan loader finds no device"


def _why_cpu(choices: list[BackendChoice], missing: list[str]) -> str:
    return "it runs everywhere" if choices else "; ".join(missing)
