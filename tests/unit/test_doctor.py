"""What the doctor makes of facts, and that its JSON is what its schema says."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from llamalite.core.trial import TrialDevice
from llamalite.doctor import Report, diagnose, native, surroundings
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


def test_an_idle_gpu_is_said_unless_the_cpu_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMALITE_BACKEND", raising=False)
    gpu = Driver("12.8", (Accelerator("NVIDIA H100", "discrete", 1 << 36, "9.0"),))
    report = replace(GOOD, accelerators=Accelerators(gpu, Driver(problem="no loader")))
    problem = only(report)
    assert "NVIDIA H100" in problem.what
    assert "--backend=cuda" in problem.suggestion
    busy = replace(report.self_test, devices=(CPU, replace(CPU, name="CUDA0", kind="GPU")))
    assert problems(replace(report, self_test=busy)) == []
    monkeypatch.setenv("LLAMALITE_BACKEND", "cpu")
    assert problems(report) == []


@pytest.mark.parametrize("library", [(), (LIBRARY,)])
def test_a_home_that_cannot_be_written_matters_most_where_nothing_is_installed(
    library: tuple[LibraryFacts, ...],
) -> None:
    test = GOOD.self_test if library else SelfTest("none")
    home = HomeFacts("/nowhere", False, 1 << 40)
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


def test_every_part_may_break_and_the_report_still_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("bad\nluck")

    for module in (surroundings, native):
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
    assert surroundings.home_facts().is_writable
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
    import threading

    never = threading.Event()
    monkeypatch.delenv("LLAMALITE_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(surroundings, "plan", lambda *_: never.wait(20))
    facts = surroundings.source_facts(0.2)
    never.set()
    assert {source.why_not for source in facts} == {"no answer in 0.2 s"}
