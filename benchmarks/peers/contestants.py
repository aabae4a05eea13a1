"""Who takes part, in which environment, and how one of them is run."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_BENCHMARKS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Contestant:
    """A peer with settings.

    Attributes:
        name: in tables.
        peer: "llamalite", "bare", or the name of the package that pip installs.
        options: what is set otherwise than the peer itself would; see the peer's module.
    """

    name: str
    peer: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_installed_here(self) -> bool:
        """Say whether it runs in llamalite's own environment."""
        return self.peer in ("llamalite", "bare")


class Failed(Exception):
    """A contestant couldn't be installed or run; the message is its last line."""


class Environments:
    """A virtual environment for each peer, made by pip when it is first needed.

    Args:
        folder: where they lie.
        pythons: interpreters to use instead, by peer.
    """

    def __init__(self, folder: Path, pythons: dict[str, Path]) -> None:
        self._folder, self._pythons = folder, pythons

    def python(self, contestant: Contestant) -> Path:
        """Return its interpreter.

        Raises:
            Failed: pip couldn't install it.
        """
        if contestant.is_installed_here:
            return Path(sys.executable)
        if contestant.peer in self._pythons:
            return self._pythons[contestant.peer]
        folder = self._folder / contestant.peer
        python = folder / "bin" / "python"
        if not (folder / "installed").exists():
            print(f"installing {contestant.peer} into {folder}", file=sys.stderr)
            venv.create(folder, clear=True, with_pip=True)
            command = [str(python), "-m", "pip", "install", contestant.peer]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise Failed(f"pip install {contestant.peer}: {_last_line(done.stderr)}")
            (folder / "installed").touch()
        return python


def run(
    contestant: Contestant, python: Path, job: dict[str, Any], timeout_s: float
) -> dict[str, Any]:
    """Run a job in a process of its own and return what its worker wrote.

    The share of the processors that others used just before is added as "busy".

    Raises:
        Failed: it ended with an error or took too long.
    """
    job = {**job, "peer": contestant.peer, "options": {**contestant.options}}
    busy = psutil.cpu_percent(1.0) / 100
    with tempfile.TemporaryDirectory() as folder:
        given, result, log = (Path(folder, name) for name in ("job", "result", "log"))
        given.write_text(json.dumps(job))
        command = [str(python), "-m", "peers.worker", str(given), str(result)]
        with log.open("w") as output:
            try:
                code = subprocess.run(
                    command, cwd=_BENCHMARKS, stdout=output, stderr=output, timeout=timeout_s
                ).returncode
            except subprocess.TimeoutExpired:
                raise Failed(f"no end within {timeout_s:g} s") from None
        if not result.exists():
            raise Failed(f"ended with {code}: {_last_line(log.read_text(errors='replace'))}")
        return {**json.loads(result.read_text()), "busy": busy}


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no output"
