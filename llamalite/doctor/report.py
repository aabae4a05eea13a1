"""What the doctor reports: plain facts, and problems with what to do about each.

Owns the report's shape; `report.schema.json` beside it says the same for `doctor --json`, and a
test holds the two together. Imports the standard library, `core.trial` and `ffi.accelerators`
for the facts they own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llamalite.core.trial import TrialDevice
from llamalite.ffi.accelerators import Accelerators

_ADVICE = re.compile(
    r": (?=(?:run|point|put|install|fetch|give|copy|set|unset|build|choose|free|see) )"
)


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, and one thing to do about it.

    Attributes:
        is_fatal: no model can be run because of it.
    """

    what: str
    suggestion: str
    is_fatal: bool = False

    @classmethod
    def of(cls, message: str, otherwise: str, *, is_fatal: bool = False) -> Problem:
        """Make one of an error's message, whose last part says what to do.

        Args:
            message: an error's.
            otherwise: the suggestion where the message has none.
            is_fatal: no model can be run because of it.
        """
        for found in _ADVICE.finditer(message):
            what = message[: found.start()]
            if what.count("(") == what.count(")"):  # a remark's own advice is part of the remark
                return cls(what, message[found.end() :], is_fatal)
        return cls(message, otherwise, is_fatal)


@dataclass(frozen=True)
class PythonFacts:
    """The interpreter."""

    version: str
    implementation: str
    executable: str
    bits: int


@dataclass(frozen=True)
class PlatformFacts:
    """The system.

    Attributes:
        name: as libraries are published for, such as `linux-x64`; None where there are none.
        system: its own name and version.
        c_library: such as `glibc 2.36`; None off Linux.
    """

    name: str | None
    system: str
    machine: str
    c_library: str | None


@dataclass(frozen=True)
class CpuFacts:
    """The processor.

    Attributes:
        n_physical: cores; None where it can't be told.
        n_logical: threads that run at once.
        features: those that decide the speed.
    """

    model: str
    n_physical: int | None
    n_logical: int | None
    features: tuple[str, ...]


@dataclass(frozen=True)
class MemoryFacts:
    """The machine's memory."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class LibraryFacts:
    """A libllama that was found.

    Attributes:
        found_by: `LLAMALITE_LIB`, `lib use` (a folder outside LLAMALITE_HOME) or `installed`.
        platform: which it is for, where an install's record says it.
        why_not: why it can't be used here; None if, as far as files tell, it can.
        notes: which optional parts of it can't be loaded here, and why.
    """

    found_by: str
    folder: str
    release: str | None
    backend: str | None
    platform: str | None
    source: str | None
    is_chosen: bool
    why_not: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SelfTest:
    """The test of the chosen library in a child process.

    Attributes:
        state: `passed`, `failed`, `off` (switched off) or `none` (there is no library).
        said: why it failed, or what it had to leave out; "" where there is nothing to say.
    """

    state: str
    said: str = ""
    release: str | None = None
    model_layout: str | None = None
    context_layout: str | None = None
    cpu_variant: str | None = None
    use_extra_bufts: bool | None = None
    tokens_s: float | None = None
    devices: tuple[TrialDevice, ...] = ()


@dataclass(frozen=True)
class HomeFacts:
    """`LLAMALITE_HOME`.

    Attributes:
        why_not: why it can't be used, as a sentence; None if it can.
    """

    folder: str
    is_writable: bool
    free_bytes: int | None
    why_not: str | None = None


@dataclass(frozen=True)
class ModelFacts:
    """A model file on this computer."""

    path: str
    n_bytes: int


@dataclass(frozen=True)
class SourceFacts:
    """A place libllama can be fetched from.

    Attributes:
        is_usable: None where it was not asked.
        why_not: why it can't be used, or wasn't asked.
    """

    name: str
    is_usable: bool | None
    why_not: str | None


@dataclass(frozen=True)
class Report:
    """Everything the doctor found out; a part that could not be told is None or empty.

    Attributes:
        can_run: whether a model can be run, perhaps after a fetch.
        unreadable: folders that models may lie in and that can't be read, and why.
        notes: what is worth knowing and no problem.
    """

    version: str
    can_run: bool
    python: PythonFacts | None
    platform: PlatformFacts | None
    cpu: CpuFacts | None
    memory: MemoryFacts | None
    libraries: tuple[LibraryFacts, ...]
    self_test: SelfTest
    accelerators: Accelerators | None
    home: HomeFacts | None
    models: tuple[ModelFacts, ...]
    unreadable: tuple[str, ...]
    sources: tuple[SourceFacts, ...]
    environment: Mapping[str, str]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it, as `report.schema.json` describes."""
        return asdict(self)

    @property
    def chosen(self) -> LibraryFacts | None:
        """The library that is used, or would be if it could."""
        return next((library for library in self.libraries if library.is_chosen), None)
