from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamalite.constraint import check_grammar
from llamalite.errors import ConstraintError

JSON = r"""
# the whole of JSON
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""

GOOD = {
    "literal": 'root ::= "hello"',
    "json": JSON,
    "crlf and cr": 'root ::= a\r\na ::= b\rb ::= "x"\r\n',
    "escapes": r'root ::= "\n\t\r\\\"\[\]\x41\u00e9\U0001F600"',
    "raw line end in a literal": 'root ::= "a\nb"',
    "unicode": 'root ::= [α-ω]+ "日本" # 注',
    "class with dash last": "root ::= [a-z0-9_-]+",
    "class with bracket": r"root ::= [\[\]]",
    "negated": "root ::= [^a-z]",
    "any": "root ::= .{3}",
    "empty literal": 'root ::= "" | "a"',
    "empty alternative": 'root ::= "a" |',
    "empty rule": "root ::=",
    "right recursion": 'root ::= "a" root | "b"',
    "recursion after text": 'expr ::= "(" expr ")" | "x"\nroot ::= expr',
    "repetitions": 'root ::= "a"? "b"* "c"+ "d"{2} "e"{2,} "f"{2,3} "g"{0,0} "h"{1999}',
    "space in repetition": 'root ::= "a"{ 1 , 2 } ("b"{\n1,\n2})',
    "repetition of a repetition": 'root ::= "a"*? "b"+* ("c"{3}){4}',
    "newlines in parentheses": 'root ::= (\n"a"\n| # or\n"b"\n)\n',
    "line end after a bar": 'root ::= "a" |\n  "b"',
    "names": 'root ::= Rule-1 9lives -x\nRule-1 ::= "a"\n9lives ::= "b"\n-x ::= "c"',
    "comment only lines": '# one\n\n  # two\nroot ::= "a" # three',
    "unused rule": 'root ::= "a"\nother ::= "b"',
    "surrogate escape": r"root ::= [\uD800-\uDFFF]",
}

BAD = {
    "": "empty",
    "   # only a comment\n": "empty",
    "root": "expected '::='",
    'root := "a"': "expected '::='",
    '::= "a"': "expected a rule name",
    '{"type": "object"}': "expected a rule name",
    'other ::= "a"': "no rule 'root'",
    "root ::= thing": "line 1, column 10: rule 'thing' is used but not defined",
    'root ::= "a"\nx ::= y': "line 2, column 7: rule 'y'",
    'root ::= "a"\nroot ::= "b"': "defined twice (first on line 1)",
    'root ::= "a': "column 10: this '\"' is never closed",
    "root ::= [a": "never closed",
    "root ::= [a-": "never closed",
    'root ::= ("a"': "column 10: this '(' is never closed",
    'root ::= "a")': "without a '('",
    'root ::= "a"\n| "b"': "line 2, column 1: expected a rule name",
    'root ::=\nb ::= "x"': "'::=' inside a rule",
    r'root ::= "\q"': "escape",
    r'root ::= "\x4"': "escape",
    r'root ::= "\u12"': "escape",
    r"root ::= [\-]": "escape",
    'root ::= "\\': "escape",
    "root ::= []": "empty character class",
    "root ::= [z-a]": "column 11: the range z-a runs backwards",
    "root ::= *": "nothing before '*'",
    'root ::= "a" | +': "nothing before '+'",
    'root ::= ""*': "nothing before '*'",
    'root ::= "a"{0}?': "nothing before '?'",
    'root ::= "a"{': "expected a number",
    'root ::= "a"{,3}': "expected a number",
    'root ::= "a"{2': "expected '}'",
    'root ::= "a"{3,2}': "runs backwards",
    'root ::= "a"{2000}': "more than 1999",
    'root ::= "a"{1000000}': "more than 1999",
    'root ::= "a"{' + "9" * 100_000 + "}": "more than 1999",
    'root ::= "a"{100}{100}': "10000 repetitions",
    'root ::= ("a"{0,50}){0,100}': "5100 repetitions",
    'root ::= a_b\na ::= "x"': "no '_'",
    "root ::= <think>": "token references",
    "root ::= <[12]>": "token references",
    "root ::= !<think>": "token references",
    'root ::= "a" \0': "NUL",
    'root ::= "\ud800"': "Unicode",
    "root ::= root": "left-recursive (root → root)",
    'root ::= root "a" | "b"': "left-recursive",
    'root ::= a\na ::= b "x"\nb ::= a | "y"': "left-recursive (a → b → a)",
    'root ::= e root\ne ::= "x"?': "left-recursive",
    'root ::= e{0,3} root\ne ::= "x"': "left-recursive",
    'root ::= "" root | "a"': "left-recursive",
    'root ::= ("a" | root)': "left-recursive",
    'root ::= ("a"*)*': "can be empty",
    'root ::= "x" ("a"?)+': "can be empty",
    'root ::= "a"**': "can be empty",
    'root ::= ws*\nws ::= " "*': "can be empty",
    'root ::= (("a"?) | ("b"?)){40} "c"': "too many ways",
    "root ::= " + "(" * 300 + '"a"' + ")" * 300: "nested more than 256",
    "root ::= " + " ".join(['"a"{0,1999}'] * 200): "grows beyond",
    'root ::= "' + "a" * (1 << 20) + '"': "bytes",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_good_grammars_pass(text: str) -> None:
    check_grammar(text)


@pytest.mark.parametrize(("text", "says"), BAD.items(), ids=[repr(t[:40]) for t in BAD])
def test_bad_grammars_say_why_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ConstraintError) as caught:
        check_grammar(text)
    message = str(caught.value)
    assert says in message
    assert "\n" not in message
    assert len(message) < 300
    assert caught.value.param == "grammar"


def refusal(text: str) -> str | None:
    try:
        check_grammar(text)
    except ConstraintError as error:
        return str(error)
    return None


def test_another_root_can_be_named() -> None:
    check_grammar('start ::= "a"', root="start")
    with pytest.raises(ConstraintError, match="no rule 'begin'"):
        check_grammar('start ::= "a"', root="begin")


def test_deepest_allowed_nesting_passes_without_recursing() -> None:
    check_grammar("root ::= " + "(" * 256 + '"a"' + ")" * 256)


def test_a_chain_of_rules_is_bounded() -> None:
    def chain(n: int) -> str:
        rules = [f"r{i} ::= r{i + 1}" for i in range(n)]
        return "\n".join(["root ::= r0", *rules, f'r{n} ::= "x"'])

    check_grammar(chain(500))
    with pytest.raises(ConstraintError, match="chain of more than 2000"):
        check_grammar(chain(3000))


def test_doubling_choices_are_refused_though_they_are_short() -> None:
    rules = [f"r{i} ::= r{i + 1} | r{i + 1}" for i in range(40)]
    text = "\n".join(["root ::= r0", *rules, 'r40 ::= "x"'])
    with pytest.raises(ConstraintError, match="too many ways"):
        check_grammar(text)


@pytest.mark.parametrize(
    "text",
    [
        'root ::= "' + "é" * 400_000 + '"',
        "root ::= [" + "ab" * 100_000 + "]",
        "root ::= " + '"a" | ' * 60_000 + '"b"',
        "\n".join(['root ::= "x"', *(f'n{i} ::= "a" n{(i * 7) % 30_000}' for i in range(30_000))]),
        "#" * 1_000_000,
        "\n" * 1_000_000,
        "root ::= " + "(" * 1_000_000,
        'root ::= "a"' + "?" * 1_000_000,
    ],
    ids=["literal", "class", "choice", "rules", "comment", "lines", "parentheses", "marks"],
)
def test_large_texts_take_bounded_time(text: str) -> None:
    started = time.perf_counter()
    assert len(refusal(text) or "") < 300
    assert time.perf_counter() - started < 10


PIECES = st.sampled_from(
    ["root", "a", "b", " ::= ", "::=", "\n", " ", "|", "(", ")", "*", "+", "?", "{2}", "{0,3}", "{",
     "}", ",", '"x"', '"', "[a-z]", "[^", "[", "]", "-", "\\", "\\n", "\\x4", ".", "#", "<", "!",
     "root ::= ", "a ::= ", "é", "0"]
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=200))
def test_any_text_passes_or_raises_constraint_error(text: str) -> None:
    assert (refusal(text) or "").isprintable()


@settings(max_examples=500, deadline=None)
@given(st.integers(0, len(JSON)), st.integers(0, len(JSON)), PIECES)
def test_damaged_grammars_pass_or_raise_constraint_error(cut: int, put: int, piece: str) -> None:
    for text in (JSON[:cut], JSON[:put] + piece + JSON[put:], JSON[:cut] + JSON[put:]):
        assert (refusal(text) or "").isprintable()
