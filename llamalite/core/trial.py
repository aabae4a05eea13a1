"""Whether a libllama works on this machine, and with what left out: tried in a child process.

Owns the order of the remedies, the time limits, what is remembered and what is said. Doesn't know
where a library comes from. Imports `llamalite.libs`, `ffi`, `llamalite.config`,
`llamalite.errors` and its siblings; it opens no library in this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llamalite import errors
from llamalite.core.child import Child, python
from llamalite.core.probe_model import write_probe_model
from llamalite.core.verdicts import recall, remember
from llamalite.errors import GGUFError, LibraryError, LibraryIncompatible
from llamalite.ffi.variants import NO_REMEDIES, Remedies, variant_files
from llamalite.libs.files.folder import LibraryFiles
from llamalite.libs.files.inspect import check_loadable

SILENCE_LIMIT_S = 15.0
"""Longest a CPU build may take for one stage of the test."""

GPU_SILENCE_LIMIT_S = 180.0
"""The same for GPU builds: a driver may compile kernels for minutes on first use."""

_NEW_TRY_LIMIT_S = 12.0
_MAX_MODEL_BYTES = 1 << 30
_CPU_ONLY = ("ggml-cpu", "ggml-rpc", "ggml-blas")


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


def try_library(files: LibraryFiles, *, model: Path | None = None) -> Trial:
    """Load a library in a child process and decode some tokens; remember what worked.

    Args:
        files: the library.
        model: a model to try besides the generated one, if it is no larger than 1 GiB.

    Raises:
        LibraryError: the library can't be loaded here, hangs, or dies whatever is left out.
    """
    check_loadable(files)
    # Made here and not by the child, which may die before it could remove it.
    with _probe_model(files) as probe:
        models = [probe, *([model] if model and model.is_file() and _is_small(model) else [])]
        first = _attempt(files, NO_REMEDIES, models)
        if first.report is not None:
            return _passed(files, first, NO_REMEDIES, "")
        first.raise_if_final(files)
        return _with_remedies(files, first, models)


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
                f"written ({reason}): point TMPDIR at a folder with 6 MB of "
                f"room, or set LLAMALITE_SELFTEST=0 to go without the test"
            ) from None
        yield path


def _with_remedies(files: LibraryFiles, first: _Attempt, models: list[Path]) -> Trial:
    started = time.monotonic()
    tried: list[Remedies] = []
    for remedies in _remedies(first):
        if time.monotonic() - started > _NEW_TRY_LIMIT_S:
            break
        attempt = _attempt(files, remedies, models, patience=1 / 3)
        if attempt.report is not None:
            notice = (
                f"{files.llama} fails on this machine ({first.death}) but works with {remedies}: "
                f"that is how it is used from now on"
            )
            return _passed(files, attempt, remedies, notice)
        if attempt.refusal is None:  # refused: this build has no such remedy
            tried.append(remedies)
    also = f"; none of {len(tried)} remedies helped, {tried[0]} the first" if tried else ""
    raise LibraryIncompatible(
        f"{files.llama} can't be used on this machine: a test of it failed ({first.death})"
        f"{also}: {_elsewhere(files)}"
    )


def _remedies(first: _Attempt) -> Iterator[Remedies]:
    if first.has_opened:
        yield Remedies(use_extra_bufts=False)
    for variant in first.variants[1:]:
        yield Remedies(cpu_variant=variant)
    if first.has_opened and len(first.variants) > 1:
        yield Remedies(use_extra_bufts=False, cpu_variant=first.variants[-1])


def _passed(files: LibraryFiles, attempt: _Attempt, remedies: Remedies, notice: str) -> Trial:
    assert attempt.report is not None
    remember(files, {**attempt.report, "remedies": asdict(remedies), "notice": notice})
    return _trial(attempt.report, remedies, notice)


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


@dataclass
class _Attempt:
    """One child's run.

    Attributes:
        report: what it found, if it passed.
        refusal: the error it raised, if it did.
        death: how and where it died or hung, for people.
        variants: CPU variants it can use, the best first.
    """

    report: dict[str, Any] | None = None
    refusal: LibraryError | None = None
    death: str = ""
    hung: bool = False
    stage: str = "starting"
    has_opened: bool = False
    variants: list[str] = field(default_factory=list)

    def take(self, fields: dict[str, Any]) -> None:
        """Take in one of its lines."""
        if "stage" in fields:
            self.has_opened = self.has_opened or self.stage == "opening it"
            self.stage = str(fields["stage"])
        self.variants = fields.get("variants", self.variants)
        self.report = fields.get("passed", self.report)
        if "refused" in fields:
            self._take_refusal(getattr(errors, str(fields.get("kind")), None), fields["refused"])

    def _take_refusal(self, kind: Any, text: str) -> None:
        if kind and issubclass(kind, LibraryError):
            self.refusal = kind(text)
        else:  # it decodes wrongly, or not at all: a remedy may help as if it had died
            self.death = f"{text}, while {self.stage}"

    def raise_if_final(self, files: LibraryFiles) -> None:
        """Raise LibraryError where no remedy can help."""
        if self.refusal is not None:
            raise self.refusal
        if self.hung:
            raise LibraryIncompatible(
                f"{files.llama} can't be used on this machine: a test of it hung ({self.death}): "
                f"{_elsewhere(files)}"
            )


def _attempt(
    files: LibraryFiles, remedies: Remedies, models: list[Path], patience: float = 1
) -> _Attempt:
    attempt = _Attempt()
    request = {
        "library": str(files.llama),
        **asdict(remedies),
        "models": [str(path.absolute()) for path in models],
    }
    limit = SILENCE_LIMIT_S if _is_cpu_only(files) else GPU_SILENCE_LIMIT_S
    try:
        child = Child("llamalite.core.selftest", json.dumps(request))
    except OSError as error:
        raise _untestable(files, error.strerror or str(error)) from None
    try:
        for line in child.lines(limit * patience):
            fields = _fields(line)
            if fields is not None:
                attempt.take(fields)
        if attempt.report is None and attempt.refusal is None and not attempt.death:
            killer, said = child.ending(), child.complaint()
            if not killer:
                raise _untestable(files, said or "it said nothing")
            attempt.death = f"{killer}, while {attempt.stage}{f'; {said}' if said else ''}"
    except TimeoutError as error:
        attempt.hung, attempt.death = True, f"{error} while {attempt.stage}"
    finally:
        child.close()
    return attempt


def _elsewhere(files: LibraryFiles) -> str:
    how = "" if _is_cpu_only(files) else " --backend=cpu"
    return (
        f"run 'llamalite lib install{how}' for another build, or point LLAMALITE_LIB at one that "
        f"works"
    )


def _untestable(files: LibraryFiles, reason: str) -> LibraryError:
    return LibraryError(
        f"{files.llama} can't be tested on this machine, because the child process with "
        f"{python()} failed ({reason}): set LLAMALITE_PYTHON to a Python that has llamalite, or "
        f"LLAMALITE_SELFTEST=0 to go without the test"
    )


def _fields(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    fields = value.get("llamalite") if isinstance(value, dict) else None
    return fields if isinstance(fields, dict) else None


def _is_small(model: Path) -> bool:
    return model.stat().st_size <= _MAX_MODEL_BYTES


def _is_cpu_only(files: LibraryFiles) -> bool:
    names = [path.name.removeprefix("lib") for path in files.backends]
    return all(name.startswith(_CPU_ONLY) for name in names)


def is_wanted() -> bool:
    """Say whether libraries are tested before use: yes, unless `LLAMALITE_SELFTEST=0`."""
    return os.environ.get("LLAMALITE_SELFTEST", "").strip().lower() not in {"0", "off", "no"}
