"""Libraries that die or hang on this machine: what is tried, said and remembered."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.broken_libraries import DIE, EXIT, HANG, copy_libraries, plant

from llamalite.core import probe_model, selftest, trial
from llamalite.core.attempt import Attempt
from llamalite.core.child import Child
from llamalite.core.trial import Trial, known_trial, try_library
from llamalite.errors import FatalDecode, LibraryError, LibraryIncompatible
from llamalite.ffi.library import Library
from llamalite.ffi.variants import Remedies, variant_files
from llamalite.gguf.constants import GGMLType
from llamalite.libs.files.folder import LibraryFiles, scan_folder

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the traps are planted in ELF files"
)

# Of the weights the CPU backend repacks, on x86-64 and on AArch64.
REPACKED = [
    f"ggml_{kind}_{weights}"
    for kind in ("gemm", "gemv")
    for weights in (
        "q4_0_8x8_q8_0",
        "q4_0_4x8_q8_0",
        "q4_0_4x4_q8_0",
        "iq4_nl_8x8_q8_0",
        "iq4_nl_4x4_q8_0",
        "q4_K_8x8_q8_K",
    )
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def healthy(library: Library) -> Trial:
    return try_library(library.files)


def cpu_backend(files: LibraryFiles, healthy: Trial) -> Path:
    if healthy.cpu_variant is not None:
        return variant_files(files)[healthy.cpu_variant]
    return next(path for path in files.backends if "ggml-cpu" in path.name)


def broken_copy(
    library: Library,
    folder: Path,
    name: str,
    *symbols: str,
    code: dict[str, bytes] = DIE,
    few: bool = False,
) -> Path:
    """Copy the library and plant traps into one of its files, wherever it has the symbols."""
    copy_libraries(library.files.folder, folder, few=few)
    planted = 0
    for symbol in symbols:
        with contextlib.suppress(LookupError):
            plant(folder / name, symbol, code)
            planted += 1
    assert planted
    return folder


def run(folder: Path, model: Path) -> tuple[subprocess.CompletedProcess[str], float]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "llamalite", "run", "--raw", "--temp=0", "-n8", "--threads=1",
         str(model), "Once upon"],
        env={**os.environ, "LLAMALITE_LIB": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done, time.monotonic() - started


def test_a_healthy_library_passes_with_nothing_left_out(library: Library, healthy: Trial) -> None:
    assert str(healthy.remedies) == "nothing left out"
    assert healthy.notice == ""
    assert healthy.model_layout == library.model_layout.name
    assert healthy.context_layout == library.context_layout.name
    assert healthy.release == library.release
    assert [device.name for device in healthy.devices] == [d.name for d in library.devices()]
    assert healthy.tokens_s > 0


def test_repacked_weights_that_kill_are_left_out_and_remembered(
    library: Library, healthy: Trial, stories: Path, tmp_path: Path
) -> None:
    backend = cpu_backend(library.files, healthy).name
    folder = broken_copy(library, tmp_path / "lib", backend, *REPACKED)
    good = run(library.files.folder, stories)[0].stdout

    first, _ = run(folder, stories)
    assert (first.returncode, first.stdout) == (0, good)
    (line,) = first.stderr.splitlines()
    assert "fails on this machine (SIGILL: illegal instruction, while decoding" in line
    assert "works with use_extra_bufts off" in line

    second, _ = run(folder, stories)
    assert (second.returncode, second.stdout, second.stderr) == (0, good, "")
    known = known_trial(scan_folder(folder))
    assert known is not None
    assert not known.remedies.use_extra_bufts


def test_a_lower_variant_is_taken_where_the_best_one_dies(
    library: Library, healthy: Trial, stories: Path, tmp_path: Path
) -> None:
    if len(variant_files(library.files)) < 2:
        pytest.skip("this build has one CPU backend only")
    backend = cpu_backend(library.files, healthy).name
    folder = broken_copy(library, tmp_path / "lib", backend, "ggml_vec_dot_q5_0_q8_0")
    done, _ = run(folder, stories)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert "works with the CPU variant" in line
    known = known_trial(scan_folder(folder))
    assert known is not None
    assert known.remedies.cpu_variant not in {None, healthy.cpu_variant}
    assert known.cpu_variant == known.remedies.cpu_variant


def test_what_dies_whatever_is_done_is_refused_in_one_line(
    library: Library, stories: Path, tmp_path: Path
) -> None:
    name = library.files.llama.name
    folder = broken_copy(library, tmp_path / "lib", name, "llama_model_default_params")
    done, took_s = run(folder, stories)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert "LLAMALITE_LIB: " in line
    assert "a test of it failed (SIGILL: illegal instruction, while opening it)" in line
    assert took_s < 20
    assert known_trial(scan_folder(folder)) is None


def test_what_hangs_is_refused(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("llamalite.core.attempt.SILENCE_LIMIT_S", 3.0)
    name = library.files.llama.name
    folder = broken_copy(library, tmp_path / "lib", name, "llama_decode", code=HANG)
    with pytest.raises(LibraryIncompatible, match=r"hung \(no word in 3 s while decoding\)"):
        try_library(scan_folder(folder))


@pytest.mark.matrix
def test_what_hangs_is_refused_within_twenty_seconds(
    library: Library, stories: Path, tmp_path: Path
) -> None:
    name = library.files.llama.name
    folder = broken_copy(library, tmp_path / "lib", name, "llama_decode", code=HANG)
    done, took_s = run(folder, stories)
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert "a test of it hung (no word in 15 s while decoding)" in line
    assert took_s < 20


def test_results_that_are_no_numbers_are_noticed(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "probe.gguf"
    probe_model.write_probe_model(path)
    assert selftest._decode(library, path) > 0
    nan = b"\x00\x7e"
    monkeypatch.setitem(probe_model._SCALES, GGMLType.Q4_0, (nan, 16, b""))
    probe_model.write_probe_model(path)
    with pytest.raises(FatalDecode, match="not numbers"):
        selftest._decode(library, path)


def test_a_library_that_computes_nonsense_gets_its_remedy(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    report = {"release": "b1", "model_layout": "M8", "context_layout": "C8", "cpu_variant": None}
    report |= {"devices": [], "tokens_s": 1.0}

    def attempt(_files: object, remedies: Remedies, *_: object, **__: object) -> Attempt:
        seen.append(remedies)
        found = Attempt(has_opened=True)
        if remedies.use_extra_bufts:
            found.take({"refused": "what it computes is not numbers", "kind": "FatalDecode"})
        else:
            found.take({"passed": report})
        return found

    monkeypatch.setattr(trial, "attempt", attempt)
    found = try_library(library.files)
    assert "fails on this machine (what it computes is not numbers" in found.notice
    assert seen == [Remedies(), Remedies(), Remedies(use_extra_bufts=False)]
    assert found.remedies == seen[-1]


def test_a_death_that_does_not_repeat_costs_no_speed(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, deaths = trial.attempt, [Attempt(death="SIGKILL: killed, while decoding")]
    monkeypatch.setattr(
        trial, "attempt", lambda *a, **how: deaths.pop() if deaths else real(*a, **how)
    )
    found = try_library(library.files)
    assert (found.remedies, found.notice) == (Remedies(), "")


def test_exit_is_a_death_like_any_other(library: Library, tmp_path: Path) -> None:
    folder = broken_copy(
        library, tmp_path / "lib", library.files.llama.name, "llama_decode", code=EXIT, few=True
    )
    with pytest.raises(
        LibraryIncompatible, match=r"failed \(it ended with exit code 7, while deco"
    ):
        try_library(scan_folder(folder))


def test_a_trap_in_a_score_leaves_the_other_variants(
    library: Library, healthy: Trial, tmp_path: Path
) -> None:
    if len(variant_files(library.files)) < 2:
        pytest.skip("this build has one CPU backend only")
    backend = cpu_backend(library.files, healthy).name
    folder = broken_copy(library, tmp_path / "lib", backend, "ggml_backend_score")
    found = try_library(scan_folder(folder))
    assert found.remedies.cpu_variant not in {None, healthy.cpu_variant}
    assert f"asking for the score of {healthy.cpu_variant}" in found.notice


def test_files_of_the_current_folder_are_not_run(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("json", "numpy", "struct", "queue"):
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w')\n")
    assert try_library(library.files)
    assert not (tmp_path / "was-run").exists()


def test_what_cannot_be_remembered_is_said(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "file"))
    assert "so it is tested at every start" in try_library(library.files).notice


def test_the_child_ends_with_its_parent(library: Library, tmp_path: Path) -> None:
    folder = broken_copy(
        library, tmp_path / "lib", library.files.llama.name, "llama_decode", code=HANG
    )
    code = (
        "import sys; from pathlib import Path; from llamalite.core.trial import try_library\n"
        "from llamalite.libs.files.folder import scan_folder\n"
        "try_library(scan_folder(Path(sys.argv[1])))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    mine = f"/proc/{parent.pid}/task/{parent.pid}/children"
    deadline = time.monotonic() + 20
    while not (children := Path(mine).read_text().split()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)  # until it hangs
    parent.kill()
    parent.wait()
    while Path(f"/proc/{children[0]}/stat").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{children[0]}/stat").exists()


def test_a_child_starts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_CHILD", "1")
    with pytest.raises(OSError, match="starts no other"):
        Child("llamalite.core.selftest", "{}")


def test_what_no_longer_works_is_forgotten(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_library(library.files)
    monkeypatch.setattr(trial, "attempt", lambda *_, **__: Attempt(death="SIGILL, while decoding"))
    with pytest.raises(LibraryIncompatible, match="a test of it failed"):
        try_library(library.files)
    assert known_trial(library.files) is None


def test_a_changed_library_is_tried_again(library: Library, tmp_path: Path) -> None:
    folder = copy_libraries(library.files.folder, tmp_path / "lib")
    files = scan_folder(folder)
    assert known_trial(files) is None
    try_library(files)
    assert known_trial(files) is not None
    os.utime(files.llama, ns=(1, 1))
    assert known_trial(files) is None


def test_another_machine_is_tried_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    try_library(library.files)
    assert known_trial(library.files) is not None
    monkeypatch.setattr("platform.release", lambda: "another kernel")
    assert known_trial(library.files) is None


def test_a_damaged_memory_costs_a_test_and_nothing_else(library: Library, tmp_path: Path) -> None:
    try_library(library.files)
    kept = tmp_path / "home" / "libs" / "trials.json"
    record = json.loads(kept.read_text())
    for content in ("", "[]", "{", '{"format": 1, "trials": []}', '{"format": 1, "trials": 3}'):
        kept.write_text(content)
        assert known_trial(library.files) is None
    (key,) = record["trials"]
    for broken in (
        None,
        [],
        {},
        {"remedies": {"nonsense": 1}, "notice": ""},
        {**record["trials"][key], "remedies": {"cpu_variant": "z80"}},
    ):
        kept.write_text(json.dumps({"format": 1, "trials": {key: broken}}))
        assert known_trial(library.files) is None
    try_library(library.files)
    assert known_trial(library.files) is not None


def test_nothing_is_left_of_the_test_however_it_ends(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    name = library.files.llama.name
    folder = broken_copy(library, tmp_path / "lib", name, "llama_model_load_from_file")
    with pytest.raises(LibraryIncompatible, match="while loading a model"):
        try_library(scan_folder(folder))
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(LibraryError, match="point TMPDIR at a folder"):
        try_library(library.files)


def test_without_a_python_for_the_child_it_says_so(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMALITE_PYTHON", "/nowhere/python")
    with pytest.raises(LibraryError, match="set LLAMALITE_PYTHON"):
        try_library(library.files)


def test_a_python_that_has_no_llamalite_is_no_verdict_on_the_library(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho 'No module named llamalite' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("LLAMALITE_PYTHON", str(script))
    with pytest.raises(LibraryError, match="LLAMALITE_PYTHON") as error:
        try_library(library.files)
    assert not isinstance(error.value, LibraryIncompatible)
