"""What the doctor makes of facts, and that its JSON is what its schema says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import psutil
import pytest
from jsonschema import Draft202012Validator, ValidationError

from llamalite.core.child import Child
from llamalite.core.trial import TrialDevice
from llamalite.doctor import Report, diagnose, folders, native, surroundings
from llamalite.doctor.judge import judge
from llamalite.doctor.report import (
    HomeFacts,
    LibraryFacts,
    PlatformFacts,
    Problem,
    PythonFacts,
    SelfTest,
    SourceFacts,
)
from llamalite.ffi.accelerators import Accelerator, Accelerators, Driver

CPU = TrialDevice("CPU", "a processor", "CPU", 1, 2)
LIBRARY = LibraryFacts("installed", "/libs/b1", "b1", "cpu", "linux-x64", "npm", True, None)
GOOD = Report(
    version="1",
    can_run=True,
    python=PythonFacts("3.12", "CPython", "/usr/bin/python3", 64),
    platform=PlatformFacts("linux-x64", "Linux 6", "x86_64", "glibc 2.36"),
    cpu=None,
    memory=None,
    libraries=(LIBRARY,),
    self_test=SelfTest("passed", use_extra_bufts=True, devices=(CPU,)),
    accelerators=Accelerators(Driver(problem="no driver"), Driver(problem="no loader")),
    home=HomeFacts("/home", True, 1 << 40),
    models=(),
    unreadable=(),
    sources=(SourceFacts("github", True, None), SourceFacts("npm", False, "npm isn't installed")),
    environment={},
    notes=(),
    problems=(),
)
NOTHING_INSTALLED = replace(GOOD, libraries=(), self_test=SelfTest("none"))


def problems(report: Report) -> list[Problem]:
    return [item for item in judge(report) if isinstance(item, Problem)]


def only(report: Report) -> Problem:
    (problem,) = problems(report)
    return problem


def with_setting(report: Report, name: str, value: str) -> Report:
    return replace(report, environment={**report.environment, name: value})


def as_json(report: Report) -> Any:
    return json.loads(json.dumps(report.to_dict()))


def schema() -> Any:
    return json.loads(
        resources.files("llamalite.doctor").joinpath("report.schema.json").read_text("utf-8")
    )


def test_nothing_wrong_is_nothing_said() -> None:
    assert list(judge(GOOD)) == []


def test_a_library_that_can_still_be_fetched_is_a_note() -> None:
    (note,) = judge(NOTHING_INSTALLED)
    assert isinstance(note, str)
    assert "through github" in note


def test_no_library_and_no_source_is_fatal_and_names_each() -> None:
    sources = (SourceFacts("github", False, "refused"), SourceFacts("npm", False, "no npm"))
    problem = only(replace(NOTHING_INSTALLED, sources=sources))
    assert problem.is_fatal
    assert "github: refused; npm: no npm" in problem.what


def test_no_library_offline_is_fatal_and_names_the_setting() -> None:
    problem = only(replace(NOTHING_INSTALLED, sources=(SourceFacts("github", None, "off"),)))
    assert problem.is_fatal
    assert "LLAMALITE_OFFLINE" in problem.suggestion


def test_a_faulty_override_is_fatal_and_carries_its_own_advice() -> None:
    bad = replace(
        LIBRARY,
        found_by="LLAMALITE_LIB",
        why_not="/x/libllama.so needs glibc 2.38 and this machine has 2.36: run `llamalite lib "
        "install` for a build that fits",
    )
    failed = SelfTest("failed", "LLAMALITE_LIB: the same again")
    problem = only(
        replace(GOOD, libraries=(bad, replace(LIBRARY, is_chosen=False)), self_test=failed)
    )
    assert problem.is_fatal
    assert problem.what.startswith("LLAMALITE_LIB: /x/libllama.so needs glibc 2.38")
    assert problem.suggestion.startswith("run `llamalite lib install`")


def test_a_failed_self_test_is_fatal() -> None:
    problem = only(replace(GOOD, self_test=SelfTest("failed", "it died (SIGILL)")))
    assert problem == Problem(
        "it died (SIGILL)",
        "run 'llamalite lib install', or point LLAMALITE_LIB at a folder with libllama",
        is_fatal=True,
    )


def test_a_remark_in_brackets_keeps_its_advice() -> None:
    problem = Problem.of("it failed (none there: set A): set B", "?")
    assert problem == Problem("it failed (none there: set A)", "set B")
    assert Problem.of("it failed (none there: set A)", "?").suggestion == "?"


def test_a_self_test_that_misses_proc_is_not_to_be_switched_off() -> None:
    said = "it can't be tested ([Errno 2] No such file or directory: '/proc/meminfo'): set X"
    problem = only(replace(GOOD, self_test=SelfTest("failed", said)))
    assert problem.suggestion == "mount /proc, which isn't there"


def test_remedies_are_a_note() -> None:
    test = replace(GOOD.self_test, said="works with use_extra_bufts off", use_extra_bufts=False)
    assert list(judge(replace(GOOD, self_test=test))) == [
        "self-test: works with use_extra_bufts off"
    ]


def test_another_broken_install_is_to_be_removed_and_a_foreign_one_is_fine() -> None:
    other = replace(LIBRARY, folder="/libs/b2", is_chosen=False, why_not="/libs/b2 is bad: run it")
    problem = only(replace(GOOD, libraries=(LIBRARY, other)))
    assert not problem.is_fatal
    assert problem.suggestion == "run 'llamalite lib remove b2'"
    foreign = replace(other, platform="linux-arm64", why_not="it is for linux-arm64")
    assert problems(replace(GOOD, libraries=(LIBRARY, foreign))) == []


def test_an_idle_gpu_is_said_unless_the_cpu_was_asked_for() -> None:
    gpu = Driver("12.8", (Accelerator("NVIDIA H100", "discrete", 1 << 36, "9.0"),))
    report = replace(GOOD, accelerators=Accelerators(gpu, Driver(problem="no loader")))
    problem = only(report)
    assert "NVIDIA H100" in problem.what
    assert "--backend=cuda" in problem.suggestion
    busy = replace(report.self_test, devices=(CPU, replace(CPU, name="CUDA0", kind="GPU")))
    assert problems(replace(report, self_test=busy)) == []
    assert problems(with_setting(report, "LLAMALITE_BACKEND", "cpu")) == []


@pytest.mark.parametrize("library", [(), (LIBRARY,)])
def test_a_home_that_cannot_be_written_matters_most_where_nothing_is_installed(
    library: tuple[LibraryFacts, ...],
) -> None:
    test = GOOD.self_test if library else SelfTest("none")
    home = HomeFacts("/nowhere", False, 1 << 40, "/nowhere can't be written to (Read-only)")
    problem = only(replace(GOOD, home=home, libraries=library, self_test=test))
    assert "/nowhere" in problem.what
    assert problem.is_fatal is not bool(library)


def test_an_unsupported_machine_is_fatal() -> None:
    platform = PlatformFacts(None, "FreeBSD 14", "amd64", None)
    problem = only(replace(NOTHING_INSTALLED, platform=platform))
    assert problem.is_fatal
    assert "FreeBSD 14 on amd64" in problem.what


def test_secrets_are_never_shown() -> None:
    shown = surroundings.environment_facts(
        {
            "HF_TOKEN": "hf_abcdef",
            "HUGGING_FACE_HUB_TOKEN": "hf_abcdef",
            "HTTPS_PROXY": "http://me:hf_abcdef@proxy:3128",
            "LLAMALITE_LIB": "/x",
            "LLAMALITE_HOME": "",
            "PATH": "/bin",
        }
    )
    assert "hf_abcdef" not in str(shown)
    assert "me" not in shown["HTTPS_PROXY"]
    assert shown["LLAMALITE_LIB"] == "/x"
    assert set(shown) == {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTPS_PROXY", "LLAMALITE_LIB"}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("https_proxy", "me:hunter2@proxy:3128", "…@proxy:3128"),
        ("https_proxy", "http://me:hunter2@x/hunter2@proxy", "http://…@proxy"),
        ("HF_ENDPOINT", "me:hunter2@hub", "…@hub"),
        ("LLAMALITE_GITHUB_URL", "https://mirror/x?key=hunter2", "https://mirror/x"),
        ("LLAMALITE_MIRROR_PW", "hunter2", "(set, not shown)"),
        ("HF_PASSPHRASE", "hunter2", "(set, not shown)"),
        ("HF_CREDENTIALS", "hunter2", "(set, not shown)"),
        ("GGML_PWD", "hunter2", "(set, not shown)"),
        ("LD_LIBRARY_PATH", "/home/a@b/lib?", "/home/a@b/lib?"),
        ("no_proxy", "localhost,.corp", "localhost,.corp"),
    ],
)
def test_settings_are_shown_without_what_may_be_secret(name: str, value: str, shown: str) -> None:
    assert surroundings.environment_facts({name: value}) == {name: shown}


@pytest.mark.parametrize("report", [GOOD, NOTHING_INSTALLED])
def test_a_level_of_the_log_that_run_refuses_is_fatal(report: Report) -> None:
    bad = problems(with_setting(report, "LLAMALITE_LOG", "wat"))
    assert [problem.is_fatal for problem in bad] == [True]
    assert "LLAMALITE_LOG is 'wat'" in bad[0].what
    assert problems(with_setting(report, "LLAMALITE_LOG", "Debug")) == []


@pytest.mark.parametrize("backend", ["wat", "metal"])
def test_a_backend_that_is_not_published_is_fatal_where_it_has_to_be_fetched(backend: str) -> None:
    first, *more = judge(with_setting(NOTHING_INSTALLED, "LLAMALITE_BACKEND", backend))
    assert isinstance(first, Problem)
    assert first.is_fatal
    assert f"LLAMALITE_BACKEND: there is no {backend} build" in first.what
    assert "choose one of cpu" in first.suggestion
    assert more == []
    seen = problems(with_setting(GOOD, "LLAMALITE_BACKEND", backend))
    assert seen[0].what == first.what
    assert not any(problem.is_fatal for problem in seen)


def test_a_backend_that_was_asked_for_and_finds_no_gpu_is_said() -> None:
    problem = only(with_setting(GOOD, "LLAMALITE_BACKEND", "vulkan"))
    assert not problem.is_fatal
    assert "LLAMALITE_BACKEND asks for vulkan" in problem.what
    assert "computes on the CPU" in problem.what


def test_an_unknown_source_is_the_fatal_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_LIB_SOURCES", "foo")
    sources = surroundings.source_facts()
    problem = only(replace(NOTHING_INSTALLED, sources=sources))
    assert problem.is_fatal
    assert "there is no source 'foo', though LLAMALITE_LIB_SOURCES names it" in problem.what
    assert problem.suggestion.startswith("choose among github")
    assert not only(replace(GOOD, sources=sources)).is_fatal


@pytest.mark.parametrize(
    "said", ["LLAMALITE_LAYOUT asks for 'X1', which is none of M1, M2", "it died (SIGSEGV)"]
)
def test_a_layout_that_was_insisted_on_is_to_be_unset(said: str) -> None:
    override = replace(LIBRARY, found_by="LLAMALITE_LIB")
    failed = replace(GOOD, libraries=(override,), self_test=SelfTest("failed", said))
    problem = only(with_setting(failed, "LLAMALITE_LAYOUT", "X1"))
    assert problem.is_fatal
    assert problem.suggestion.startswith("unset LLAMALITE_LAYOUT")
    assert problem.what.startswith("LLAMALITE_L")
    assert problem.what.count("LLAMALITE_") == 1


def test_a_home_that_is_a_file_is_the_only_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))
    report = replace(NOTHING_INSTALLED, home=folders.home_facts())
    (problem,) = judge(report)
    assert isinstance(problem, Problem)
    assert problem.is_fatal
    assert f"{tmp_path / 'home'} is no folder" in problem.what


def without_rights(*, folder: Path, call: str) -> Any:
    """Evaluate what is called in `folders`, as a user who isn't root."""
    program = (
        "import json, os, sys; from llamalite.doctor import folders;"
        "import huggingface_hub.constants;"
        "os.geteuid() == 0 and os.setuid(65534);"
        f"print(json.dumps(folders.{call}, default=vars))"
    )
    env = {**os.environ, "LLAMALITE_HOME": str(folder), "HF_HUB_CACHE": str(folder / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter: pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        for path in folder.rglob("*"):
            if not path.is_symlink():
                path.chmod(0o777)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_installs_that_cannot_be_read_are_a_trouble_of_the_home(open_folder: Path) -> None:
    libs = open_folder / "libs"
    libs.mkdir(mode=0o700)
    libs.chmod(0o000)
    home = without_rights(folder=open_folder, call="home_facts()")
    assert home["why_not"] == f"{libs} can't be read (Permission denied)"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_folders_for_models_that_cannot_be_read_are_named_and_the_others_seen(
    open_folder: Path,
) -> None:
    models, hub = open_folder / "models", open_folder / "hub"
    snapshot = hub / "models--a--b" / "snapshots" / "1"
    for folder in (models / "shut", models / "listed", snapshot, hub / "models--c--d"):
        folder.mkdir(parents=True)
    for path in (models / "m.gguf", models / "listed" / "l.gguf", snapshot / "b.gguf"):
        path.write_bytes(b"GGUF")
    (models / "gone.gguf").symlink_to("nowhere")
    (models / "shut").chmod(0o000)
    (models / "listed").chmod(0o444)
    found, unreadable = without_rights(folder=open_folder, call="model_facts()")
    assert [fact["path"] for fact in found] == [str(models / "m.gguf"), str(snapshot / "b.gguf")]
    reason = "(Permission denied)"
    assert unreadable == [f"{models / 'listed'} {reason}", f"{models / 'shut'} {reason}"]
    hub.chmod(0o000)
    found, unreadable = without_rights(folder=open_folder, call="model_facts()")
    assert len(found) == 1
    assert f"{hub} {reason}" in unreadable
    seen = problems(replace(GOOD, unreadable=tuple(unreadable)))
    assert len(seen) == 3
    assert not any(problem.is_fatal or "report" in problem.suggestion for problem in seen)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the current folder")
@pytest.mark.parametrize("name", ["LLAMALITE_HOME", "LLAMALITE_LIB"])
def test_a_current_folder_that_is_gone_is_one_problem(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    monkeypatch.setenv(name, "relative")
    monkeypatch.chdir(gone)
    gone.rmdir()
    (problem,) = diagnose().problems
    assert problem.is_fatal
    assert problem.what == f"the current folder is gone, and {name} is relative to it"


def test_a_home_of_an_unknown_user_is_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_HOME", "~no-such-user/x")
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    (problem,) = diagnose().problems
    assert problem.is_fatal
    assert "LLAMALITE_HOME" in problem.what


def test_without_room_for_threads_everything_is_asked_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path))
    monkeypatch.delenv("LLAMALITE_LIB", raising=False)
    monkeypatch.delenv("LLAMALITE_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(surroundings, "plan", lambda *_: [])
    monkeypatch.setattr(threading.Thread, "start", start)
    report = diagnose()
    assert {source.why_not for source in report.sources} == {"it has no build for this platform"}
    assert report.accelerators is not None
    assert "no process could be started" in (report.accelerators.cuda.problem or "")
    assert not any("report" in problem.suggestion for problem in report.problems)


def test_an_interrupt_ends_the_processes_that_were_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path))
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    started, waiting = threading.Event(), threading.Event()

    def wait(*_: object) -> SelfTest:
        child = Child("time", "")
        started.set()
        child._process.wait()
        waiting.set()
        return SelfTest("none")

    def interrupt() -> None:
        assert started.wait(10)
        raise KeyboardInterrupt

    sleeper = tmp_path / "python3"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setenv("LLAMALITE_PYTHON", str(sleeper))
    monkeypatch.setattr(native, "self_test", wait)
    monkeypatch.setattr(surroundings, "python_facts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        diagnose()
    assert waiting.wait(10)


def test_what_psutil_cannot_tell_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "virtual_memory", refuse)
    monkeypatch.setattr(psutil, "cpu_count", refuse)
    assert surroundings.memory_facts() is None
    assert surroundings.cpu_facts().n_physical is None


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_missing_proc_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: path != "/proc/self" and real(path))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    monkeypatch.setattr(native, "self_test", lambda _: GOOD.self_test)
    (problem,) = [p for p in diagnose().problems if "memory" in p.what]
    assert problem == Problem("the memory can't be told: /proc isn't mounted", "mount it")


@pytest.mark.parametrize(
    ("options", "is_one_place", "n_times"),
    [((), True, 1), (("-q",), True, 1), (("-q",), False, 2), (("--json",), True, 2)],
)
def test_the_worst_is_said_once_where_one_reads_both(
    options: tuple[str, ...], is_one_place: bool, n_times: int, tmp_path: Path
) -> None:
    env = {**os.environ, "LLAMALITE_HOME": str(tmp_path), "LLAMALITE_OFFLINE": "1"}
    env.pop("LLAMALITE_LIB", None)
    done = subprocess.run(
        [sys.executable, "-m", "llamalite", "doctor", *options],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if is_one_place else subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 1
    said = done.stdout + (done.stderr or "")
    assert said.count("no libllama is installed, and network use is off") == n_times
    assert not said.startswith("\n")


def test_every_part_may_break_and_the_report_still_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("bad\nluck")

    for module in (surroundings, folders, native):
        for name in [name for name in dir(module) if name.endswith(("_facts", "self_test"))]:
            monkeypatch.setattr(module, name, broken)
    monkeypatch.setattr("llamalite.doctor.find_accelerators", broken)
    report = diagnose()
    Draft202012Validator(schema()).validate(as_json(report))
    assert not report.can_run
    assert len([problem for problem in report.problems if "bad luck" in problem.what]) >= 11
    assert all("\n" not in problem.what for problem in report.problems)


def test_the_schema_is_valid_and_refuses_what_is_unknown_missing_or_wrong() -> None:
    Draft202012Validator.check_schema(schema())
    validator = Draft202012Validator(schema())
    good = as_json(GOOD)
    validator.validate(good)
    for spoil in (
        lambda report: report.update(extra=1),
        lambda report: report.pop("problems"),
        lambda report: report["libraries"][0].update(is_chosen="yes"),
        lambda report: report["self_test"].update(state="maybe"),
        lambda report: report["self_test"]["devices"][0].update(extra=1),
    ):
        bad = json.loads(json.dumps(good))
        spoil(bad)
        with pytest.raises(ValidationError):
            validator.validate(bad)


def test_no_object_in_the_schema_is_open_but_the_environment() -> None:
    open_objects = []

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and node.get("additionalProperties") is not False:
                open_objects.append(path)
            for key, value in node.items():
                walk(value, f"{path}/{key}")

    walk(schema(), "")
    assert open_objects == ["/properties/environment"]


def test_looking_makes_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path / "not" / "there"))
    monkeypatch.delenv("LLAMALITE_LIB", raising=False)
    assert folders.home_facts().why_not is None
    assert folders.model_facts() == ((), ())
    assert native.library_facts() == ()
    assert native.self_test() == SelfTest("none")
    assert list(tmp_path.iterdir()) == []


def test_offline_sources_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")
    monkeypatch.setattr(surroundings, "plan", lambda *_: pytest.fail("a source was asked"))
    assert {source.is_usable for source in surroundings.source_facts()} == {None}


def test_a_source_that_never_answers_costs_the_limit_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = threading.Event()
    monkeypatch.delenv("LLAMALITE_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(surroundings, "plan", lambda *_: never.wait(20))
    facts = surroundings.source_facts(0.2)
    never.set()
    assert {source.why_not for source in facts} == {"no answer in 0.2 s"}
