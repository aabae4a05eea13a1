"""Every command's help is its docopt usage, and what lists the commands is made from one table."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import docopt
import pytest
from cli_process import ROOT, llamalite

from llamalite.cli import main as cli
from llamalite.cli.argv import declared_options

NAMES = [*cli.COMMANDS, *cli.SECOND_NAMES]


def usage_of(name: str) -> str:
    command = importlib.import_module(cli.module_of(cli.SECOND_NAMES.get(name, name)))
    return (command.__doc__ or "").strip()


@pytest.mark.parametrize("name", NAMES)
def test_help_is_the_usage_that_docopt_reads(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    usage = usage_of(name)
    for args in ([name, "--help"], [name, "-h"], ["help", name]):
        assert cli.main(args) == 0
        assert capsys.readouterr() == (usage + "\n", "")
    patterns = docopt.parse_docstring_sections(usage).usage_body
    with pytest.raises(docopt.DocoptExit):  # read without a DocoptLanguageError, and refused
        docopt.docopt(usage, ["no such action", *["x"] * 9], default_help=False)
    first = cli.SECOND_NAMES.get(name, name)
    calls = re.findall(r"^ +llamalite (\S+)", patterns, re.M)
    assert calls
    assert set(calls) <= {first, f"({first}"}
    declared = declared_options(usage)
    assert set(re.findall(r"--[a-z][\w-]*", patterns)) <= set(declared)
    assert "--help" in declared
    assert all(len(line) <= 100 for line in usage.splitlines())


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_summary_is_the_first_sentence_of_the_usage(name: str) -> None:
    first = usage_of(name).splitlines()[0]
    assert re.split(r"\.(?: |$)", first)[0] == cli.COMMANDS[name]


def test_the_overview_names_every_command_once() -> None:
    done = llamalite("help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = done.stdout.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    names = [name for line in listed for name in re.split(r"  +", line.strip())[0].split(", ")]
    assert sorted(names) == sorted([*NAMES, "help"])
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_the_readme_holds_the_table_that_the_commands_make() -> None:
    printed = subprocess.run(
        [sys.executable, ".ci/command_table.py"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    assert printed.count("\n") == len(cli.COMMANDS) + 2
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("<!-- commands -->\n")[1].split("<!-- /commands -->")[0]
    assert table == printed, "run .ci/command_table.py --write"


def test_a_second_name_is_the_same_command() -> None:
    assert llamalite("remove", "--help").stdout == llamalite("rm", "--help").stdout != ""
