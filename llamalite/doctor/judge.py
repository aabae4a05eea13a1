"""What the facts mean: problems with a suggestion for each, and notes.

A pure function of the report. Imports `core.backend_choice`, `core.trial`, `llamalite.libs`,
`llamalite.errors`, `native` and `report`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from llamalite.config import AUTO_BACKEND
from llamalite.core.backend_choice import VARIABLE, choose_backends
from llamalite.core.trial import GPU_KINDS
from llamalite.doctor.native import MARKED, OVERRIDE
from llamalite.doctor.report import LibraryFacts, Problem, Report
from llamalite.errors import LlamaliteError
from llamalite.libs.platforms import Platform
from llamalite.libs.sources import plan
from llamalite.libs.sources.releases import PINNED

_LEAST_FREE_BYTES = 1 << 30
_LAYOUT = "LLAMALITE_LAYOUT"
_INSTALL = "run 'llamalite lib install', or point LLAMALITE_LIB at a folder with libllama"
_UNSET = "point LLAMALITE_LIB at another folder, or unset it to use an installed libllama"


def judge(report: Report) -> Iterator[Problem | str]:
    """Give the problems and, as text, the notes that follow from a report's facts."""
    is_foreign = report.platform is not None and report.platform.name is None
    if report.platform is not None and is_foreign:
        yield Problem(
            f"no libllama is published for {report.platform.system} on {report.platform.machine} "
            f"with a {report.python.bits if report.python else '?'}-bit Python",
            "use a 64-bit Python on Linux, macOS or Windows, or build llama.cpp and point "
            "LLAMALITE_LIB at it",
            is_fatal=report.chosen is None,
        )
    blocks = [*_settings(report), *_home(report)]
    yield from blocks
    if report.chosen is None and not is_foreign:
        yield from _without_library(report, is_blocked=any(block.is_fatal for block in blocks))
    yield from _library(report)
    yield from _gpu(report)
    yield from _others(report)


def _settings(report: Report) -> Iterator[Problem]:
    """Look for settings that are refused when they are needed."""
    level = report.environment.get("LLAMALITE_LOG", "")
    if level and not isinstance(getattr(logging, level.upper(), None), int):
        yield Problem(
            f"LLAMALITE_LOG is {level!r}, which is no level of the log",
            "set it to debug, info, warning or error, or unset it",
            is_fatal=True,
        )
    is_needed = report.chosen is None  # what has to be fetched
    backend = _requested_backend(report)
    if backend != AUTO_BACKEND and report.platform is not None and report.platform.name is not None:
        try:
            PINNED.check_published(report.platform.name, backend)
        except LlamaliteError as error:
            yield Problem.of(f"{VARIABLE}: {error}", f"unset {VARIABLE}", is_fatal=is_needed)
    for source in report.sources:
        if source.name == plan.VARIABLE:
            yield Problem.of(source.why_not or "", f"unset {plan.VARIABLE}", is_fatal=is_needed)


def _requested_backend(report: Report) -> str:
    return report.environment.get(VARIABLE, "").strip().lower() or AUTO_BACKEND


def _without_library(report: Report, *, is_blocked: bool) -> Iterator[Problem | str]:
    usable = [source.name for source in report.sources if source.is_usable]
    if any(source.name == plan.VARIABLE for source in report.sources):
        return
    if usable:
        if not is_blocked:
            yield (
                f"no libllama is installed yet: the first use fetches llama.cpp {PINNED.tag} "
                f"(through {usable[0]})"
            )
    elif any(source.is_usable is None for source in report.sources):
        yield Problem(
            "no libllama is installed, and network use is off, so none can be fetched",
            "point LLAMALITE_LIB at a folder with libllama, or unset LLAMALITE_OFFLINE "
            "(and HF_HUB_OFFLINE)",
            is_fatal=True,
        )
    else:
        reasons = "; ".join(f"{source.name}: {source.why_not}" for source in report.sources)
        yield Problem(
            f"no libllama is installed, and no source can give one ({reasons or 'none was asked'})",
            "see to one of them, or point LLAMALITE_LIB at a folder with libllama",
            is_fatal=True,
        )


def _library(report: Report) -> Iterator[Problem | str]:
    test, chosen = report.self_test, report.chosen
    is_override = chosen is not None and chosen.found_by == OVERRIDE
    prefix, advice = (f"{OVERRIDE}: ", _UNSET) if is_override else ("", _INSTALL)
    if chosen is not None and chosen.why_not is not None:
        yield Problem.of(prefix + chosen.why_not, advice, is_fatal=True)
    elif test.state == "failed":
        said = test.said if test.said.startswith("LLAMALITE_") else prefix + test.said
        problem = Problem.of(said, advice, is_fatal=True)
        if _LAYOUT in report.environment:
            otherwise = "" if _LAYOUT in said else f"; if that doesn't help, {problem.suggestion}"
            problem = replace(problem, suggestion=f"unset {_LAYOUT}{otherwise}")
        elif "'/proc/" in said:
            problem = replace(problem, suggestion="mount /proc, which isn't there")
        yield problem
    elif test.said:
        yield f"self-test: {test.said}"
    for line in chosen.notes if chosen is not None else ():
        yield Problem.of(line, "nothing needs to be done if you don't need that part")


def _home(report: Report) -> Iterator[Problem]:
    for folder in report.unreadable:
        yield Problem(
            f"a folder for models can't be read, so those in it aren't seen: {folder}",
            "change its permissions, or set LLAMALITE_HOME or HF_HOME to another folder",
        )
    home = report.home
    if home is None:
        return
    if home.why_not is not None:
        yield Problem(
            f"{home.why_not}, so nothing can be installed or kept in LLAMALITE_HOME",
            "set LLAMALITE_HOME to a folder of yours",
            is_fatal=report.chosen is None,
        )
    elif home.free_bytes is not None and home.free_bytes < _LEAST_FREE_BYTES:
        yield Problem(
            f"there is little space for libraries and models in {home.folder} "
            f"({home.free_bytes / 1e6:.0f} MB)",
            "free some, or set LLAMALITE_HOME to another disk",
        )


def _gpu(report: Report) -> Iterator[Problem | str]:
    """Look for a GPU that the library in use leaves idle."""
    if report.accelerators is None or report.platform is None or report.platform.name is None:
        return
    backend = _requested_backend(report)
    if report.self_test.state != "passed" or backend == "cpu":
        return
    if any(device.kind in GPU_KINDS for device in report.self_test.devices):
        return
    platform = Platform.parse(report.platform.name)
    best = choose_backends(platform, requested=AUTO_BACKEND, accelerators=report.accelerators)[0]
    if best.backend != "cpu":
        yield Problem(
            f"there is a GPU ({best.reason}), and the libllama in use computes on the CPU alone",
            f"run 'llamalite lib install --backend={best.backend}'",
        )
    elif backend != AUTO_BACKEND:
        yield Problem(
            f"{VARIABLE} asks for {backend}, but the libllama in use offers no GPU on this machine "
            f"and computes on the CPU",
            f"see to the GPU's driver, or unset {VARIABLE}",
        )


def _others(report: Report) -> Iterator[Problem | str]:
    """Look at libraries that aren't used, of those that should be usable."""
    here = report.platform.name if report.platform else None
    for library in report.libraries:
        if library.is_chosen or library.why_not is None:
            continue
        why = Problem.of(library.why_not, "").what
        if library.found_by == MARKED:
            yield Problem(
                f"the libllama that 'lib use' chose is passed over: {why}",
                "choose another with 'llamalite lib use NAME'",
            )
        elif library.platform == here:
            yield Problem(
                f"an installed libllama can't be used: {why}",
                f"run 'llamalite lib remove {_name(library)}'",
            )


def _name(library: LibraryFacts) -> str:
    return Path(library.folder).name
