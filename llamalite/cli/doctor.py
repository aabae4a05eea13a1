"""Say what works on this machine, what doesn't, and what to do about it.

Usage:
  llamalite doctor [--json] [--quiet]

Looks at Python, the system, every libllama, devices and drivers, folders and models. Tests the
libllama in use anew: a child process loads it and decodes some tokens; if it works, how it does
replaces what was remembered. Contacts the sources libllama can be fetched from, unless
LLAMALITE_OFFLINE is set, and fetches nothing.
Exit code 1 if no model could be run; then stderr says why, unless stdout, at the same place, does.

Options:
  --json        print JSON, as doctor/report.schema.json in the package describes it
  -q, --quiet   the problems alone
  -h, --help    print this
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from llamalite.cli import terminal
from llamalite.cli.options import parse
from llamalite.core.trial import TrialDevice
from llamalite.doctor import Problem, Report, diagnose
from llamalite.doctor.report import LibraryFacts
from llamalite.ffi.accelerators import Driver
from llamalite.libs.transfer.wording import size_text

_COLUMN = 13
_SHOWN_MODELS = 8


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "doctor", argv)
    if options is None:
        return 0
    logging.getLogger("llamalite").setLevel(logging.ERROR)  # the report says it all
    is_quiet, is_json = options.flag("--quiet"), options.flag("--json")
    report = diagnose(None if is_quiet or not terminal.is_terminal() else terminal.say)
    fatal = [problem for problem in report.problems if problem.is_fatal]
    if fatal and (is_json or not _are_one_place()):
        terminal.complain(f"{fatal[0].what}: {fatal[0].suggestion}")
    if is_json:
        terminal.write(json.dumps(report.to_dict(), ensure_ascii=False) + "\n")
        return 0 if report.can_run else 1
    blocks = [_block(problem) for problem in report.problems]
    if not is_quiet:
        facts = (f"{name:<{_COLUMN}} {terminal.one_line(fact)}\n" for name, fact in _facts(report))
        blocks.insert(0, "".join(facts))
    terminal.write("\n".join(blocks))
    return 0 if report.can_run else 1


def _block(problem: Problem) -> str:
    what, suggestion = terminal.one_line(problem.what), terminal.one_line(problem.suggestion)
    return f"problem: {what}\n  → {suggestion}\n"


def _are_one_place() -> bool:
    """Say whether stdout and stderr go to the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    yield "llamalite", report.version
    yield from _machine(report)
    yield from _library(report)
    for device in report.self_test.devices:
        yield "device", _device(device)
    if report.accelerators is not None:
        yield "NVIDIA", _driver(report.accelerators.cuda)
        yield "Vulkan", _driver(report.accelerators.vulkan)
    yield from _folders(report)
    for source in report.sources:
        words = {True: "usable", False: "not usable", None: "not asked"}[source.is_usable]
        yield "source", f"{source.name}: {words}{_in_brackets(source.why_not)}"
    for name, value in report.environment.items():
        yield "setting", f"{name}={value}"
    for note in report.notes:
        yield "note", note


def _machine(report: Report) -> Iterator[tuple[str, str]]:
    python, platform, cpu, memory = report.python, report.platform, report.cpu, report.memory
    if python is not None:
        about = f"{python.implementation} {python.version}, {python.bits} bits"
        yield "Python", f"{about}, {python.executable}"
    if platform is not None:
        parts = (platform.name or "no platform of libllama's", platform.system, platform.c_library)
        yield "platform", ", ".join(part for part in parts if part)
    if cpu is not None:
        cores = f"{cpu.n_physical or '?'} cores, {cpu.n_logical or '?'} threads"
        yield "CPU", f"{cpu.model}, {cores}"
        yield "CPU features", " ".join(cpu.features) or "none known"
    if memory is not None:
        free, total = size_text(memory.available_bytes), size_text(memory.total_bytes)
        yield "memory", f"{free} free of {total}"
    else:
        yield "memory", "unknown"


def _library(report: Report) -> Iterator[tuple[str, str]]:
    for library in report.libraries:
        yield "library", _found(library)
    if not report.libraries:
        yield "library", "none is installed"
    test = report.self_test
    if test.state != "passed":
        yield "self-test", {"none": "nothing to test"}.get(test.state, test.state)
        return
    parts = [f"layouts {test.model_layout} and {test.context_layout}"]
    parts += [f"CPU variant {test.cpu_variant}"] if test.cpu_variant else []
    parts += [] if test.use_extra_bufts else ["use_extra_bufts off"]
    yield "self-test", f"passed, libllama {test.release}, {', '.join(parts)}"


def _found(library: LibraryFacts) -> str:
    about = [library.release, library.backend, library.platform, library.source]
    parts = [part for part in about if part] or [library.found_by]
    if library.why_not is not None:
        state = "can't be used"
    else:
        state = "in use" if library.is_chosen else "usable"
    via = f" ({library.found_by})" if library.found_by != "installed" and library.release else ""
    why = f": {Problem.of(library.why_not, '').what}" if library.why_not else ""
    return f"{state}: {' '.join(parts)}{via}, {library.folder}{why}"


def _device(device: TrialDevice) -> str:
    free, total = size_text(device.free_bytes), size_text(device.total_bytes)
    memory = f", {free} free of {total}" if device.total_bytes else ""
    return f"{device.name} ({device.kind}), {device.description}{memory}"


def _driver(driver: Driver) -> str:
    version = f"CUDA {driver.version}, " if driver.version else ""
    named = [
        f"{device.name} ({device.kind}, {size_text(device.total_bytes)})"
        for device in driver.devices
    ]
    return version + ("; ".join(named) or driver.problem or "no device")


def _folders(report: Report) -> Iterator[tuple[str, str]]:
    home = report.home
    if home is not None:
        free = f", {size_text(home.free_bytes)} free" if home.free_bytes is not None else ""
        yield "home", f"{home.folder}{'' if home.is_writable else ', not writable'}{free}"
    for model in report.models[:_SHOWN_MODELS]:
        yield (
            "model",
            f"{Path(model.path).name}, {size_text(model.n_bytes)}, {Path(model.path).parent}",
        )
    if len(report.models) > _SHOWN_MODELS:
        yield "model", f"and {len(report.models) - _SHOWN_MODELS} more"
    if not report.models:
        yield "model", "none on this computer yet"


def _in_brackets(text: str | None) -> str:
    return f" ({text})" if text else ""
