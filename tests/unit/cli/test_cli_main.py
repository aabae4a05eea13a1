from __future__ import annotations

import inspect
import os
import re
import statistics
import subprocess
import sys
import types
from pathlib import Path

import pytest
from cli_process import ROOT, llamalite

from llamalite import __version__, errors
from llamalite.cli import main as cli

ALL_ERRORS = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.LlamaliteError)
]


def test_every_error_family_has_its_own_exit_code() -> None:
    families = [cls for cls in ALL_ERRORS if cls.__base__ is errors.LlamaliteError]
    assert len(families) >= 7
    codes = [cli.EXIT_CODES[family] for family in families]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("error", ALL_ERRORS)
def test_every_error_has_an_exit_code_of_its_family(error: type[errors.LlamaliteError]) -> None:
    code = cli.exit_code(error)
    assert 0 < code < 64
    family = error
    while family.__base__ not in (errors.LlamaliteError, Exception):
        family = family.__base__
    assert code == cli.EXIT_CODES[family]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt, 130),
        (BrokenPipeError, 141),
        (FileNotFoundError, 1),
        (ZeroDivisionError, 70),
    ],
)
def test_other_exceptions_have_exit_codes(error: type[BaseException], code: int) -> None:
    assert cli.exit_code(error) == code


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str) -> None:
    done = llamalite(flag)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"llamalite {__version__}\n", "")


@pytest.mark.parametrize("args", [["help"], ["--help"], ["-h"], ["help", "help"]])
def test_help_is_the_overview(args: list[str]) -> None:
    done = llamalite(*args)
    assert (done.returncode, done.stdout, done.stderr) == (0, cli.overview(), "")


def test_no_command_prints_help_on_stderr_and_fails() -> None:
    done = llamalite()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage:" in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["rnu"], "unknown command 'rnu': did you mean 'run'?"),
        (["libs"], "did you mean 'lib' or"),
        (["xyzzy"], "commands are run, "),
        (["help", "rum"], "did you mean 'rm' or 'run'?"),
        (["--verbose"], "unknown option --verbose"),
        (["chat"], "there is no command 'chat': it comes with a later version; 'llamalite run' "),
        (["a\x1b[31m\nb"], "unknown command"),
    ],
)
def test_unknown_commands_exit_2_with_one_line(args: list[str], says: str) -> None:
    done = llamalite(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.startswith("llamalite: ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("name", ["chat", "ps", "stop", "push", "quantize", "download", "delete"])
def test_commands_of_similar_programs_lead_to_what_there_is_here(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([name, "x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"llamalite: there is no command '{name}': ")
    for command in re.findall("llamalite ([a-z]+)", said):
        assert command in cli.COMMANDS


def raising(error: BaseException) -> types.ModuleType:
    module = types.ModuleType("raising")

    def command(_argv: list[str]) -> int:
        raise error

    module.main = command  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (errors.ModelNotFound("no model\nhere"), 5, "llamalite: no model here\n"),
        (errors.LlamaliteError("odd"), 1, "llamalite: odd\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "llamalite: Permission denied: /x\n"),
        (KeyError("bug"), 70, "llamalite: internal error, KeyError: 'bug' (please report it,"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
    ],
)
def test_errors_become_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    monkeypatch.delenv("LLAMALITE_DEBUG", raising=False)
    monkeypatch.setitem(sys.modules, "llamalite.cli.fail", raising(error))
    monkeypatch.setitem(cli.COMMANDS, "fail", "Fail")
    assert cli.main(["fail"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == (1 if line else 0)


def test_debug_shows_the_traceback_and_keeps_the_exit_code() -> None:
    for value in ("1", ""):
        done = llamalite("rnu", env={"LLAMALITE_DEBUG": value})
        assert ("Traceback" in done.stderr) is bool(value)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].startswith("llamalite: unknown command 'rnu'")


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the stream")
@pytest.mark.parametrize("arguments", ["--version", "--help", "show /nonexistent", "run --help"])
def test_a_closed_stdout_is_no_internal_error(arguments: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m llamalite {arguments} >&-"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in {1, 5}
    assert "internal error" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX locales")
def test_arguments_in_utf8_under_the_c_locale() -> None:
    environment = {
        "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
        "PATH": os.environ["PATH"],
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "llamalite", "run", "/nonexistent.gguf", "é 漢"],
        env=environment,
        capture_output=True,
        cwd=ROOT,
        check=False,
    )
    assert b"nonexistent.gguf" in done.stderr
    assert done.returncode == 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "llamalite", "--version"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "llamalite: No space left on device (while writing the output)\n"


def test_a_reader_that_went_away_is_no_error_message() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "llamalite", "help"],
        stdout=write,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_stdout_is_utf8_in_any_locale() -> None:
    done = llamalite(
        "help", "run", env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    )
    assert done.returncode == 0
    assert "±" in done.stdout


def loaded_modules(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_version_and_import_load_nothing_heavy() -> None:
    heavy = {"numpy", "docopt", "ctypes", "rich", "huggingface_hub", "jinja2", "asyncio"}
    assert not heavy & loaded_modules("import llamalite")
    version = "from llamalite.__main__ import main\nmain(['--version'])"
    assert not heavy & loaded_modules(version)


@pytest.mark.parametrize(
    ("args", "limit_s"),
    [(["-m", "llamalite", "--version"], 0.120), (["-c", "import llamalite"], 0.060)],
)
def test_start_up_takes_little_processor_time(args: list[str], limit_s: float) -> None:
    """Processor time, which other work on the machine doesn't stretch as it does wall time."""
    resource = pytest.importorskip("resource")

    def cost(*argv: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *argv], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert statistics.median(cost(*args) for _ in range(9)) < limit_s
