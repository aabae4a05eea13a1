"""One run of the self-test in a child process: how far it got, and how it ended.

Owns the child's request and answers, and the time limits. Doesn't know what follows from an
attempt; `trial` does. Imports `llamalite.errors`, `ffi.variants`, `llamalite.libs` and `child`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llamalite import errors
from llamalite.core.child import Child, python
from llamalite.errors import LibraryError
from llamalite.ffi.variants import Remedies
from llamalite.libs.files.folder import LibraryFiles

SILENCE_LIMIT_S = 15.0
"""Longest a CPU build may take for one stage of the test."""

GPU_SILENCE_LIMIT_S = 180.0
"""The same for GPU builds: a driver may compile kernels for minutes on first use."""

STARTING, OPENING = "starting", "opening it"
SCORING = "asking for the score of "
"""Names of stages; a CPU variant's name follows the last."""

_CPU_ONLY = ("ggml-cpu", "ggml-rpc", "ggml-blas")


@dataclass
class Attempt:
    """One child's run.

    Attributes:
        report: what it found, if it passed.
        refusal: the error it raised, if it did.
        death: how and where it died, for people.
        has_hung: whether it fell silent instead.
        stage: what it was at last doing.
        has_opened: whether it got past opening the library.
        variants: CPU variants it can use, the best first.
    """

    report: dict[str, Any] | None = None
    refusal: LibraryError | None = None
    death: str = ""
    has_hung: bool = False
    stage: str = STARTING
    has_opened: bool = False
    variants: list[str] = field(default_factory=list)
    broken: str = ""

    @property
    def is_over(self) -> bool:
        """Say whether its last line has come."""
        return bool(self.report or self.refusal or self.death or self.broken)

    def take(self, fields: dict[str, Any]) -> None:
        """Take in one of its lines."""
        if "stage" in fields:
            self.has_opened = self.has_opened or self.stage == OPENING
            self.stage = str(fields["stage"])
        self.variants = fields.get("variants", self.variants)
        self.report = fields.get("passed", self.report)
        self.broken = fields.get("broken", self.broken)
        if "refused" in fields:
            self._take_refusal(getattr(errors, str(fields.get("kind")), None), fields["refused"])

    def _take_refusal(self, kind: Any, text: str) -> None:
        if kind and issubclass(kind, LibraryError):
            self.refusal = kind(text)
        else:  # it decodes wrongly, or not at all: a remedy may help as if it had died
            self.death = f"{text.split(';')[0]}, while {self.stage}"


def attempt(files: LibraryFiles, remedies: Remedies, model: Path, patience: float = 1.0) -> Attempt:
    """Run the self-test once.

    Args:
        files: the library.
        remedies: what to leave out of it.
        model: the generated model.
        patience: part of the usual time limits.

    Raises:
        LibraryError: no child process can be started, or the test itself is broken.
    """
    found = Attempt()
    limit = SILENCE_LIMIT_S if is_cpu_only(files) else GPU_SILENCE_LIMIT_S
    request = {
        "library": str(files.llama),
        **asdict(remedies),
        "model": str(model),
        "limit_s": 10 * limit,
    }
    try:
        child = Child("llamalite.core.selftest", json.dumps(request))
    except OSError as error:
        raise _untestable(files, error.strerror or str(error)) from None
    try:
        for line in child.lines(limit * patience, counts=lambda line: bool(_fields(line))):
            found.take(_fields(line))
            if found.is_over:
                break
        else:
            found.death = f"{child.ending()}, while {found.stage}"
        if found.death and (said := child.complaint()):
            found.death += f"; {said}"
    except TimeoutError as error:
        found.has_hung, found.death = True, f"{error} while {found.stage}"
    finally:
        child.close()
    if found.broken or (found.death and found.stage == STARTING):
        raise _untestable(files, found.broken or found.death)
    return found


def _fields(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    fields = value.get("llamalite") if isinstance(value, dict) else None
    return fields if isinstance(fields, dict) else {}


def is_cpu_only(files: LibraryFiles) -> bool:
    """Say whether a build computes on the CPU alone."""
    names = [path.name.removeprefix("lib") for path in files.backends]
    return all(name.startswith(_CPU_ONLY) for name in names)


def _untestable(files: LibraryFiles, reason: str) -> LibraryError:
    return LibraryError(
        f"{files.llama} can't be tested on this machine, because the child process with "
        f"{python()} failed ({reason}): set LLAMALITE_PYTHON to a Python that has llamalite, or "
        f"LLAMALITE_SELFTEST=0 to go without the test"
    )
