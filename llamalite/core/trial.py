"""Whether a libllama works on this machine, and with what left out: tried in a child process.

Owns the order of the remedies, what is remembered and what is said. Doesn't know where a library
comes from. Imports `llamalite.libs`, `ffi.variants`, `llamalite.config`, `llamalite.errors` and its
siblings; it opens no library in this process.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llamalite import config
from llamalite.core.attempt import OPENING, SCORING, Attempt, attempt, is_cpu_only
from llamalite.core.probe_model import write_probe_model
from llamalite.core.verdicts import forget, recall, remember
from llamalite.errors import GGUFError, LibraryError, LibraryIncompatible
from llamalite.ffi.variants import NO_REMEDIES, Remedies, variant_files
from llamalite.libs.files.folder import LibraryFiles
from llamalite.libs.files.inspect import check_loadable

Say = Callable[[str], None]

GPU_KINDS = frozenset({"GPU", "IGPU"})
"""Kinds of devices that layers can be offloaded to."""

_NEW_TRY_LIMIT_S = 12.0
_SAID_AFTER_S = 3.0


@dataclass(frozen=True)
class TrialDevice:
    """A device the library offered."""

    name: str
    description: str
    kind: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Trial:
    """What the test of a library on this machine found.

    Attributes:
        remedies: what has to be left out.
        notice: one line for a person; "" where nothing was wrong.
        release: upstream's tag, or "unknown".
        model_layout: layout of llama_model_params, as "M8".
        context_layout: layout of llama_context_params, as "C8".
        cpu_variant: the CPU backend in use (`haswell`), or None where the build has only one.
        devices: with their memory at that time.
        tokens_s: decode speed of the tiny test model, one thread; no benchmark.
    """

    remedies: Remedies
    notice: str
    release: str
    model_layout: str
    context_layout: str
    cpu_variant: str | None
    devices: tuple[TrialDevice, ...]
    tokens_s: float

    @property
    def has_gpu(self) -> bool:
        """Say whether a device is one that layers can be offloaded to."""
        return any(device.kind in GPU_KINDS for device in self.devices)


def known_trial(files: LibraryFiles) -> Trial | None:
    """Return what is remembered of this very library on this very machine, or None."""
    try:
        found = recall(files)
        if found is None:
            return None
        remedies = Remedies(**found["remedies"])
        if remedies.cpu_variant not in {None, *variant_files(files)}:
            return None
        return _trial(found, remedies, found["notice"])
    except (KeyError, TypeError):
        return None  # from another version of llamalite


def try_library(files: LibraryFiles, say: Say | None = None) -> Trial:
    """Load a library in a child process and decode some tokens; remember what worked.

    Args:
        files: the library.
        say: takes a line where the test takes long.

    Raises:
        LibraryError: the library can't be loaded here, hangs, or dies whatever is left out.
    """
    try:
        check_loadable(files)
        # Made here and not by the child, which may die before it could remove it.
        with _probe_model(files) as model, _patience_asked_for(files, say):
            return _try(files, model)
    except LibraryIncompatible:
        forget(files)  # it may have worked until now
        raise


def _try(files: LibraryFiles, model: Path) -> Trial:
    first = attempt(files, NO_REMEDIES, model)
    if first.report is None:
        _raise_if_final(first, files)
        # Once more: the system may have ended it for reasons of its own.
        first = attempt(files, NO_REMEDIES, model, patience=1 / 3)
    if first.report is not None:
        return _passed(files, first, NO_REMEDIES, "")
    _raise_if_final(first, files)
    return _with_remedies(files, first, model)


@contextlib.contextmanager
def _probe_model(files: LibraryFiles) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="llamalite-"))
            path = Path(folder) / "selftest.gguf"
            write_probe_model(path)
        except (OSError, GGUFError) as error:
            reason = getattr(error, "strerror", None) or error
            raise LibraryError(
                f"{files.llama} can't be tested on this machine, because no test model can be "
                f"written ({reason}): point TMPDIR at a folder with 6 MB of room, or set "
                f"LLAMALITE_SELFTEST=0 to go without the test"
            ) from None
        yield path


@contextlib.contextmanager
def _patience_asked_for(files: LibraryFiles, say: Say | None) -> Iterator[None]:
    """Say a line if the block takes long, as it may with a GPU."""
    line = f"testing {files.folder} on this machine; a GPU's driver may take minutes at first"
    timer = threading.Timer(_SAID_AFTER_S, say or (lambda _line: None), [line])
    timer.daemon = True
    if not is_cpu_only(files):
        with contextlib.suppress(RuntimeError):  # no room for a thread
            timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _with_remedies(files: LibraryFiles, first: Attempt, model: Path) -> Trial:
    started = time.monotonic()
    tried: list[Remedies] = []
    for remedies in _remedies(files, first):
        if time.monotonic() - started > _NEW_TRY_LIMIT_S:
            break
        found = attempt(files, remedies, model, patience=1 / 3)
        if found.report is not None:
            notice = (
                f"{files.llama} fails on this machine ({first.death}) but works with {remedies}"
            )
            return _passed(files, found, remedies, notice)
        if found.refusal is None:  # refused: this build has no such remedy
            tried.append(remedies)
    also = f"; none of {len(tried)} remedies helped, {tried[0]} the first" if tried else ""
    raise LibraryIncompatible(
        f"{files.llama} can't be used on this machine: a test of it failed ({first.death})"
        f"{also}: {_elsewhere(files)}"
    )


def _remedies(files: LibraryFiles, first: Attempt) -> Iterator[Remedies]:
    if first.has_opened:
        yield Remedies(use_extra_bufts=False)
    variants = first.variants[0 if first.stage == OPENING else 1 :]
    if first.stage.startswith(SCORING):  # it can't be told which is best: any that works will do
        variants = [name for name in variant_files(files) if name not in first.stage]
    for variant in variants:
        yield Remedies(cpu_variant=variant)
    if first.has_opened and variants:
        yield Remedies(use_extra_bufts=False, cpu_variant=variants[-1])


def _raise_if_final(found: Attempt, files: LibraryFiles) -> None:
    """Raise LibraryError where no remedy can help."""
    if found.refusal is not None:
        raise found.refusal
    if found.has_hung:
        raise LibraryIncompatible(
            f"{files.llama} can't be used on this machine: a test of it hung ({found.death}): "
            f"{_elsewhere(files)}"
        )


def _passed(files: LibraryFiles, found: Attempt, remedies: Remedies, notice: str) -> Trial:
    assert found.report is not None
    problem = remember(files, {**found.report, "remedies": asdict(remedies), "notice": notice})
    if problem is not None:
        again = f"which can't be remembered ({problem}), so it is tested at every start"
        notice = f"{notice}, {again}" if notice else f"{files.llama} was tested, {again}"
    elif notice:
        notice += ": so it is used from now on ('llamalite doctor' tests anew)"
    return _trial(found.report, remedies, notice)


def _trial(report: dict[str, Any], remedies: Remedies, notice: str) -> Trial:
    return Trial(
        remedies=remedies,
        notice=notice,
        release=report["release"],
        model_layout=report["model_layout"],
        context_layout=report["context_layout"],
        cpu_variant=report["cpu_variant"],
        devices=tuple(TrialDevice(**device) for device in report["devices"]),
        tokens_s=report["tokens_s"],
    )


def _elsewhere(files: LibraryFiles) -> str:
    if config.library_override() is not None:
        return "point LLAMALITE_LIB at another build, or unset it to use an installed one"
    how = "" if is_cpu_only(files) else " --backend=cpu"
    return f"run 'llamalite lib install{how}' for another build, or 'llamalite lib use' one"


def is_wanted() -> bool:
    """Say whether libraries are tested before use: yes, unless `LLAMALITE_SELFTEST=0`."""
    setting = os.environ.get("LLAMALITE_SELFTEST", "").strip().lower()
    return setting not in {"0", "off", "no", "false"}
