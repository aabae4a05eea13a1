from __future__ import annotations

import importlib

import docopt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamalite.cli.argv import ALIASES, canonical, declared_options
from llamalite.cli.main import COMMANDS, module_of
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
    assert canonical(given_, OPTIONS) == expected


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        (["-xyz"], "unknown option -xyz"),
        (["-nv"], "unknown option -nv"),
        (["-fa"], "llama.cpp's -fa (--flash-attn) is no option"),
        (["-np", "4"], "llama.cpp's -np (--parallel) is no option"),
        (["-ctk", "q8_0"], "llama.cpp's -ctk"),
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
        canonical(given_, OPTIONS)
    assert says in str(caught.value)


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
        result = canonical(argv, OPTIONS)
    except InvalidParameter:
        return
    words = result[result.index("--") + 1 :] if "--" in result else result
    assert all(word in argv for word in words if not word.startswith("--"))
