from __future__ import annotations

import importlib

import docopt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamalite.cli.argv import ALIASES, canonical, declared_options
from llamalite.cli.main import COMMANDS, module_of
from llamalite.cli.options import parse
from llamalite.cli.rm import __doc__ as rm_usage
from llamalite.cli.run import __doc__ as run_usage
from llamalite.errors import InvalidParameter

OPTIONS = declared_options(run_usage or "")


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (["-ngl", "99", "m", "p"], ["--gpu-layers=99", "m", "p"]),
        (["-ub", "64"], ["--ubatch-size=64"]),
        (["-tb", "2"], ["--threads-batch=2"]),
        (["-sys", "Be brief."], ["--system=Be brief."]),
        (["-hf", "a/b:Q4_0"], ["--model=a/b:Q4_0"]),
        (["--temp", "0"], ["--temperature=0"]),
        (["--temp=0"], ["--temperature=0"]),
        (["-t", "0.5"], ["--temperature=0.5"]),
        (["--n-predict", "5"], ["--max-tokens=5"]),
        (["-n", "-1"], ["--max-tokens=-1"]),
        (["-n-1"], ["--max-tokens=-1"]),
        (["-n5"], ["--max-tokens=5"]),
        (["-t.5"], ["--temperature=.5"]),
        (["--seed", "-1"], ["--seed=-1"]),
        (["-p", "--help"], ["--prompt=--help"]),
        (["-p", "--"], ["--prompt=--"]),
        (["--prompt", "-dash"], ["--prompt=-dash"]),
        (["--prompt=a=b"], ["--prompt=a=b"]),
        (["-vv"], ["--verbose", "--verbose"]),
        (["-vq"], ["--verbose", "--quiet"]),
        (["m", "-"], ["m", "-"]),
        (["m", "--", "-5 degrees"], ["--", "m", "-5 degrees"]),
        (["m", "--", "plain"], ["m", "plain"]),
        (["--", "--", "--"], ["--", "--", "--"]),
        (["-n", "5", "-n", "6"], ["--max-tokens=6"]),
        (["--stop", "a", "--stop", "a", "--stop=b"], ["--stop=a", "--stop=a", "--stop=b"]),
    ],
)
def test_spellings(given_: list[str], expected: list[str]) -> None:
    assert canonical(given_, OPTIONS, "run") == expected


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (["-xyz"], "unknown option -xyz"),
        (["-nv"], "unknown option -nv"),
        (["-fa"], "llama.cpp's -fa (--flash-attn) is no option"),
        (["-np", "4"], "llama.cpp's -np (--parallel) is no option"),
        (["-nkvo"], "llama.cpp's -nkvo"),
        (["-ngl"], "-ngl needs a value"),
        (["-n"], "-n needs a value"),
        (["--top-k"], "--top-k needs a value"),
        (["--json=1"], "--json takes no value"),
        (["--top_k", "3"], "did you mean --top-k"),
        (["--temp-range", "3"], "unknown option --temp-range"),
        (["--top", "3"], "unknown option --top: did you mean --top-k or --top-p"),
        (["--stat"], "unknown option --stat: did you mean --stats?"),
        (["-5"], "unknown option -5"),
        (["-what is this"], "goes behind '--'"),
    ],
)
def test_what_is_not_understood_is_refused(given_: list[str], says: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        canonical(given_, OPTIONS, "run")
    assert says in str(caught.value)


def test_only_a_command_that_takes_a_prompt_speaks_of_one() -> None:
    with pytest.raises(InvalidParameter, match=r"^unknown option -x: see 'llamalite rm "):
        canonical(["-x"], declared_options(rm_usage or ""), "rm")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("alias one", "MODEL is missing; usage: llamalite alias [--force] [--json] [--quiet] [--] "
                      "NAME MODEL"),
        ("alias --remove", "NAME is missing; usage: llamalite alias --remove "),
        ("alias a b c", "'c' is one too many; usage: llamalite alias [--force]"),
        ("alias -f --remove a", "--force has no place there; usage: llamalite alias --remove"),
        ("import f --copy --link", "--copy and --link exclude each other; usage: llamalite import"),
        ("import --", "PATH is missing; usage: llamalite import"),
        ("cp a", "NEW is missing; usage: llamalite cp [--quiet] [--] NAME NEW"),
        ("cp", "NAME and NEW are missing; usage: llamalite cp"),
        ("show", "MODEL is missing; usage: llamalite show [--json] [--quiet] [--] MODEL"),
        ("show --tensors m --template", "--template has no place there; usage: llamalite show "),
        ("list all", "'all' is one too many; usage: llamalite list [-v] [--json] [--quiet]"),
        ("prune -n x", "'x' is one too many; usage: llamalite prune [-n]"),
        ("config set", "KEY and VALUE are missing; usage: llamalite config [--] set KEY VALUE"),
        ("config get --json k", "--json has no place there; usage: llamalite config get KEY"),
        ("config", "give one of show, path, init, get, set, unset: see 'llamalite config --help'"),
        ("config sett a 1", "'sett' is none of show, path, init, get, set, unset: see "),
        ("lib use", "NAME is missing; usage: llamalite lib use [--no-test]"),
        ("lib install --list x", "'x' is one too many; usage: llamalite lib install --list"),
        ("run m a b", "'b' is one too many (text of several words goes in quotes); "
                      "usage: llamalite run [options] [--] [MODEL] [PROMPT]"),
    ],
)  # fmt: skip
def test_wrong_arguments_show_the_usage_that_comes_nearest(line: str, says: str) -> None:
    command, *argv = line.split()
    with pytest.raises(InvalidParameter) as caught:
        parse(importlib.import_module(module_of(command)).__doc__, command, argv)
    assert str(caught.value).startswith(f"wrong arguments: {says}")
    assert ("quotes" in str(caught.value)) is (command == "run")


@pytest.mark.parametrize("command", COMMANDS)
def test_docopt_sees_the_same_options_in_every_usage(command: str) -> None:
    usage = importlib.import_module(module_of(command)).__doc__
    mine = declared_options(usage)
    sections = docopt.parse_docstring_sections(usage)
    theirs = docopt.parse_options(sections.after_usage)
    assert {o.longer: bool(o.argcount) for o in theirs} == {
        o.name: o.takes_value for o in mine.values()
    }
    assert {o.short: o.longer for o in theirs if o.short} == {
        short: o.name for short, o in mine.items() if not short.startswith("--")
    }


def test_no_alias_hides_an_option() -> None:
    assert not set(ALIASES) & set(OPTIONS)


@given(st.lists(st.text(max_size=8) | st.sampled_from([*OPTIONS, *ALIASES, "--", "-", "=1", "-n"])))
def test_any_arguments_are_read_or_refused(argv: list[str]) -> None:
    try:
        result = canonical(argv, OPTIONS, "run")
    except InvalidParameter:
        return
    words = result[result.index("--") + 1 :] if "--" in result else result
    assert all(word in argv for word in words if not word.startswith("--"))
