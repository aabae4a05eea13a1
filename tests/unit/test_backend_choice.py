"""Which backend is picked, and what is said when one can't be had."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.libllama_files import write_build

from llamalite.config import requested_backend
from llamalite.core import backend_choice, installation
from llamalite.core.backend_choice import (
    BackendChoice,
    choose_backends,
    find_accelerators,
    install_best,
)
from llamalite.core.installation import Wish, install_and_test
from llamalite.core.trial import Trial, TrialDevice
from llamalite.errors import DownloadError, LibraryIncompatible, Offline
from llamalite.ffi.accelerators import Accelerator, Accelerators, Driver, main, read_driver
from llamalite.ffi.variants import Remedies
from llamalite.libs.files.folder import RECORD_NAME
from llamalite.libs.find import RECORD_FORMAT, Installed
from llamalite.libs.platforms import Platform, current_platform
from llamalite.libs.sources.plan import plan
from llamalite.libs.sources.releases import PINNED
from llamalite.libs.staging import Place

LINUX, MAC = Platform("linux", "x64"), Platform("macos", "arm64")
H100 = Driver("12.8", (Accelerator("NVIDIA H100", "discrete", 80 << 30, "9.0"),))
RADEON = Driver("", (Accelerator("Radeon 780M", "integrated", 1 << 34),))
LAVAPIPE = Driver("", (Accelerator("llvmpipe", "software", 1 << 34),))
NO_CUDA, NO_VULKAN = Driver(problem="no NVIDIA driver"), Driver(problem="no Vulkan loader")


@pytest.fixture(autouse=True)
def no_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LLAMALITE_BACKEND", "LLAMALITE_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))


def picked(cuda: Driver, vulkan: Driver, published: Any = None) -> list[str]:
    choices = choose_backends(LINUX, published, accelerators=Accelerators(cuda, vulkan))
    return [choice.backend for choice in choices]


def test_nvidia_comes_before_vulkan_and_the_cpu_last() -> None:
    assert picked(H100, RADEON) == ["cuda", "vulkan", "cpu"]
    assert picked(NO_CUDA, RADEON) == ["vulkan", "cpu"]
    assert picked(H100, NO_VULKAN) == ["cuda", "cpu"]


def test_nothing_found_is_the_cpu_and_says_why() -> None:
    (choice,) = choose_backends(LINUX, accelerators=Accelerators(NO_CUDA, NO_VULKAN))
    assert choice == BackendChoice("cpu", "no NVIDIA driver; no Vulkan loader")


def test_a_software_renderer_is_no_gpu() -> None:
    (choice,) = choose_backends(LINUX, accelerators=Accelerators(NO_CUDA, LAVAPIPE))
    assert choice.backend == "cpu"
    assert "llvmpipe, which is no GPU" in choice.reason


@pytest.mark.parametrize(("version", "capability"), [("11.8", "8.6"), ("12.2", "3.7"), ("", "8.6")])
def test_old_drivers_and_old_devices_are_passed_over(version: str, capability: str) -> None:
    old = Driver(version, (Accelerator("Tesla", "discrete", 1 << 33, capability),))
    assert picked(old, NO_VULKAN) == ["cpu"]


def test_what_is_not_published_is_not_picked() -> None:
    assert picked(H100, RADEON, ["cpu", "vulkan"]) == ["vulkan", "cpu"]
    assert picked(H100, RADEON, ["cpu", "cuda-13.4"]) == ["cuda", "cpu"]


def test_macs_have_metal_also_from_afar() -> None:
    assert [choice.backend for choice in choose_backends(MAC)] == ["metal", "cpu"]
    assert [choice.backend for choice in choose_backends(Platform("macos", "x64"))] == ["cpu"]


def test_another_machine_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_choice, "find_accelerators", lambda: pytest.fail("drivers asked"))
    there = Platform("windows", "arm64")
    if there == current_platform():
        there = LINUX
    (choice,) = choose_backends(there)
    assert choice.backend == "cpu"
    assert "can't be seen from here" in choice.reason


def test_what_is_asked_for_is_the_only_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [choice.backend for choice in choose_backends(LINUX, requested="rocm")] == ["rocm"]
    monkeypatch.setenv("LLAMALITE_BACKEND", "Vulkan")
    (choice,) = choose_backends()
    assert (choice.backend, choice.asked) == ("vulkan", True)
    assert requested_backend("cpu") == "cpu"
    monkeypatch.setenv("LLAMALITE_BACKEND", "")
    assert requested_backend() == "auto"


class Installer:
    """Stands in for `install`: raises what it is told for each backend."""

    def __init__(self, **failures: Exception) -> None:
        self.failures, self.calls = failures, []

    def __call__(self, backend: str, **how: Any) -> str:
        self.calls.append((backend, how["strict_backend"]))
        if backend in self.failures:
            raise self.failures[backend]
        return f"installed {backend}"


def test_each_failure_is_said_before_the_next_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Installer(cuda=LibraryIncompatible("no libcublas"), vulkan=DownloadError("cut off"))
    monkeypatch.setattr(backend_choice, "install", installer)
    said: list[str] = []
    choices = choose_backends(LINUX, accelerators=Accelerators(H100, RADEON))
    assert install_best(said.append, choices) == "installed cpu"
    assert installer.calls == [("cuda", True), ("vulkan", True), ("cpu", False)]
    assert [line.split(" ")[1].rstrip(":") for line in said] == [
        "cuda", "cuda", "vulkan", "vulkan", "cpu",
    ]  # fmt: skip
    assert "no libcublas" in said[1]
    assert "--backend=cuda" in said[1]
    assert all("\n" not in line for line in said)


@pytest.mark.parametrize("how", [{"release": "bogus"}, {"sources": ["foo"]}, {"offline": "1"}])
def test_a_choice_is_not_explained_where_nothing_is_fetched(
    how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_choice, "install", Installer())
    monkeypatch.setenv("LLAMALITE_OFFLINE", how.pop("offline", ""))
    said: list[str] = []
    install_best(said.append, [BackendChoice("cpu", "it runs everywhere")], platform=LINUX, **how)
    assert said == []


def test_an_install_that_does_not_work_here_is_followed_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backend_choice, "install", lambda backend, **_: f"installed {backend}")
    asked = []

    def accept(choice: BackendChoice, installed: object) -> None:
        asked.append(installed)
        raise LibraryIncompatible("it dies here")

    said: list[str] = []
    choices = [BackendChoice("cuda", "a card"), BackendChoice("cpu", "always")]
    assert install_best(said.append, choices, accept) == "installed cpu"
    assert asked == ["installed cuda"]  # the last choice is the caller's to judge
    assert any("cuda can't be used (it dies here); trying cpu" in line for line in said)


def test_what_was_asked_for_is_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Installer(cuda=DownloadError("cut off"))
    monkeypatch.setattr(backend_choice, "install", installer)
    with pytest.raises(DownloadError, match="cut off"):
        install_best(lambda _: None, choose_backends(LINUX, requested="cuda"))
    assert installer.calls == [("cuda", False)]


def test_offline_speaks_of_the_first_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    installer = Installer(cuda=Offline("cuda archive"), cpu=Offline("cpu archive"))
    monkeypatch.setattr(backend_choice, "install", installer)
    choices = choose_backends(LINUX, accelerators=Accelerators(H100, NO_VULKAN))
    with pytest.raises(Offline, match="cuda archive"):
        install_best(lambda _: None, choices)


CPU_DEVICE = TrialDevice("CPU", "a processor", "CPU", 1, 2)
TRIAL = Trial(Remedies(), "", "b1", "M1", "C1", None, (CPU_DEVICE,), 1.0)


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """`install_and_test` finds this folder with the build it asks for, and tests find TRIAL."""
    folder = write_build(tmp_path / "home" / "libs" / "b1-any", current_platform().arch)
    record = Installed(folder, "b1", "any", str(current_platform()), "github", "", "")
    monkeypatch.setattr(backend_choice, "install", lambda *_, **__: record)
    monkeypatch.setattr(installation, "try_library", lambda *_: TRIAL)
    monkeypatch.setattr(installation, "use_install", lambda _: None)
    return folder


@pytest.mark.parametrize("by_variable", [True, False])
@pytest.mark.parametrize(("backend", "is_said"), [("vulkan", True), ("cpu", False)])
def test_a_backend_that_was_asked_for_and_offers_no_gpu_is_said(
    backend: str, is_said: bool, by_variable: bool, installs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_variable:
        monkeypatch.setenv("LLAMALITE_BACKEND", backend)
    said: list[str] = []
    install_and_test(Wish(backend=None if by_variable else backend), said.append)
    no_gpu = [line for line in said if "offers no GPU on this machine" in line]
    assert len(no_gpu) == is_said
    assert all(line.startswith("backend vulkan was asked for") for line in no_gpu)


def test_what_lies_on_this_computer_needs_no_drivers(
    installs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_choice, "find_accelerators", lambda: pytest.fail("drivers asked"))
    monkeypatch.setenv("LLAMALITE_BACKEND", "vulkan")
    said: list[str] = []
    install_and_test(Wish(local=installs), said.append)
    assert said == []


def test_a_choice_that_is_installed_already_is_not_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = plan(PINNED, None, LINUX, "cpu")[0]
    folder = Place(None, LINUX).folder(PINNED.tag, "cpu", way.source)
    folder.mkdir(parents=True)
    (folder / "libllama.so").write_bytes(b"x")
    fields = {"release": PINNED.tag, "backend": "cpu", "platform": str(LINUX)}
    record = {"format": RECORD_FORMAT, "files": {"libllama.so": 1}, **fields}
    (folder / RECORD_NAME).write_text(json.dumps(record))
    monkeypatch.setattr(backend_choice, "install", Installer())
    said: list[str] = []
    choices = [BackendChoice("cpu", "it runs everywhere")]
    install_best(said.append, choices, platform=LINUX)
    assert said == []
    install_best(said.append, choices, platform=LINUX, release="b10605")
    assert said == ["backend cpu: it runs everywhere"]


def test_the_drivers_here_are_asked_for_real() -> None:
    found = find_accelerators()
    for driver in (found.cuda, found.vulkan):
        assert (driver.problem is None) == bool(driver.devices)
        assert "without an answer" not in (driver.problem or "")


def test_the_program_prints_what_is_read_back() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["cuda", "vulkan"]) == 0
    for line in printed.getvalue().splitlines():
        driver = read_driver(line)
        assert json.loads(line)["problem"] == driver.problem


@pytest.mark.parametrize("line", ["", "[]", "null", '{"version": ""}', "a driver's chatter", "1"])
def test_chatter_is_no_answer(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_driver(line)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os; os.abort()", "without an answer (SIGABRT: it aborted)"),
        ("import time; time.sleep(60)", "does not answer"),
        ("print('chatter')", "without an answer (it ended with exit code 0)"),
        ("raise SystemExit('no room')", "(it ended with exit code 1; no room)"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in driver is a shell script")
def test_a_driver_that_dies_hangs_or_says_nothing(
    program: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    python.chmod(0o755)
    monkeypatch.setenv("LLAMALITE_PYTHON", str(python))
    found = find_accelerators(1.0)
    for driver in (found.cuda, found.vulkan):
        assert driver.devices == ()
        assert said in (driver.problem or "")
