from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llamalite.config import ModelConfig
from llamalite.errors import InvalidParameter
from llamalite.models.modelfile import format_modelfile, parse_modelfile

WHOLE = '''\
# A comment, and an empty line

FROM llama3.2:1b
  system """You are Mario.
# This is no comment.

Answer "shortly"."""
PARAMETER temperature 0.2
parameter num_ctx 4096
PARAMETER num_predict -1
PARAMETER num_gpu 0
PARAMETER num_thread 3
PARAMETER seed 42
PARAMETER stop "<|im_end|>"
PARAMETER stop User:
PARAMETER stop [INST]
PARAMETER stop "  "
PARAMETER Repeat_Penalty 1.1
PARAMETER logit_bias {"5": -1.5}
PARAMETER ignore_eos true
PARAMETER dry_sequence_breakers ;
TEMPLATE """{% for m in messages %}
{{ m.content }}{% endfor %}"""
MESSAGE user Hi: there
MESSAGE assistant "It's a me"
ADAPTER ./lora.gguf
ADAPTER "my lora.gguf" 0.5
LICENSE one
LICENSE "two
lines"
'''


def refusal(text: str, where: str = "Modelfile") -> str:
    with pytest.raises(InvalidParameter) as caught:
        parse_modelfile(text, where)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    return message


def test_every_directive_is_read(tmp_path: Path) -> None:
    read = parse_modelfile(WHOLE, tmp_path / "Modelfile")
    assert read == ModelConfig(
        model="llama3.2:1b",
        n_ctx=4096,
        n_gpu_layers=0,
        n_threads=3,
        chat_template="{% for m in messages %}\n{{ m.content }}{% endfor %}",
        system_prompt='You are Mario.\n# This is no comment.\n\nAnswer "shortly".',
        sampling={
            "temperature": 0.2,
            "max_tokens": None,
            "seed": 42,
            "stop": ("<|im_end|>", "User:", "[INST]", "  "),
            "repeat_penalty": 1.1,
            "logit_bias": {5: -1.5},
            "ignore_eos": True,
            "dry_sequence_breakers": (";",),
        },
        adapters=((str(tmp_path / "lora.gguf"), 1.0), (str(tmp_path / "my lora.gguf"), 0.5)),
        messages=(("user", "Hi: there"), ("assistant", "It's a me")),
        license="one\n\ntwo\nlines",
    )
    assert parse_modelfile(format_modelfile(read), "elsewhere/Modelfile") == read


def test_a_file_from_windows_reads_the_same(tmp_path: Path) -> None:
    where = tmp_path / "Modelfile"
    there = parse_modelfile("\ufeff" + WHOLE.replace("\n", "\r\n"), where)
    assert there == parse_modelfile(WHOLE, where)


def test_a_file_from_an_old_mac_reads_the_same(tmp_path: Path) -> None:
    there = parse_modelfile('FROM m\rSYSTEM "a\rb"\r', tmp_path / "Modelfile")
    assert there == ModelConfig(model="m", system_prompt="a\nb")


@pytest.mark.parametrize(
    "text",
    [
        "PARAMETER stop x\n" * 60_000,
        "MESSAGE user x\n" * 60_000,
        "ADAPTER a" + " " * 500_000 + "b\n",
        "ADAPTER a " + "1" * 500_000 + "x\n",
        "TEMPLATE " + "{{ if x " * 100_000 + "\n",
        "TEMPLATE " + "{{" + " " * 500_000 + "\n",
    ],
    ids=["stops", "messages", "spaces", "digits", "expressions", "blanks"],
)
def test_reading_takes_time_in_proportion_to_the_file(text: str) -> None:
    started = time.process_time()
    with contextlib.suppress(InvalidParameter):
        parse_modelfile("FROM m\n" + text, "Modelfile")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "line",
    [
        "{}", "{} x", "PARAMETER {}", "PARAMETER {} 1", "PARAMETER num_ctx {}",
        "PARAMETER stop {}\nPARAMETER temperature {}", "MESSAGE {}", "MESSAGE {} x", "FROM {}/../x",
        "FROM hf:o/r/{}.gguf", "ADAPTER {}/../x", 'ADAPTER "{}', "TEMPLATE {}",
        "TEMPLATE {{ .{} }}",
    ],
)  # fmt: skip
def test_a_long_line_has_a_short_error(line: str) -> None:
    refusal(line.replace("{}", "x" * 100_000) + "\nFROM m")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("FORM x", "FORM is no directive (FROM, SYSTEM"),
        ("RENDERER x", "RENDERER has no meaning here"),
        ("SYSTEM", "SYSTEM has no value"),
        ("PARAMETER temperature", "PARAMETER temperature has no value"),
        ("PARAMETER temperature hot", "temperature must be a number"),
        ("PARAMETER temperature -1", "temperature is -1"),
        ("PARAMETER num_ctx 1.5", "n_ctx must be a whole number"),
        ("PARAMETER top_k 5\nPARAMETER TOP_K 6", "TOP_K was given before"),
        ("PARAMETER num_keep 5", "num_keep has no meaning here (a prompt that"),
        ("PARAMETER temperatur 1", "did you mean temperature?"),
        ("PARAMETER context_size 1", "there is no parameter 'context_size'"),
        ("PARAMETER system_prompt x", "system_prompt is no parameter: write SYSTEM"),
        ("MESSAGE tool x", "a message's role is system, user, assistant, not 'tool'"),
        ("FROM a", "FROM was given before"),
        ('SYSTEM """a\nb', 'the value begins with """ and doesn\'t end'),
        ('SYSTEM "a" b', "the value begins with \" and doesn't end"),
        ("TEMPLATE {{ .System }} {{ .Prompt }}", "is a Go template ('{{ .')"),
        ("TEMPLATE {{- if .System }}{{ end }}", "is a Go template"),
        ("TEMPLATE {{ range .Messages }}x{{ end }}", "is a Go template"),
        ("TEMPLATE {{ range $i, $_ := .Messages }}", "is a Go template"),
        ('TEMPLATE {{ template "x" }}', "is a Go template"),
        ("TEMPLATE {% if x %}", "the chat template"),
        ("TEMPLATE chatlm", "no chat template named 'chatlm'"),
        ("ADAPTER a.gguf 1e999", "adapters must be paths with scales"),
        ('ADAPTER "a.gguf', "write ADAPTER PATH [SCALE]"),
        ("ADAPTER ../a.gguf", "leads out of the Modelfile's folder"),
        ("ADAPTER x/../../a.gguf", "leads out of the Modelfile's folder"),
        ("ADAPTER ..\\a.gguf", "leads out of the Modelfile's folder"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(line: str, says: str) -> None:
    n_line = 3 + (line.count("\n") if "before" in says else 0)
    message = refusal(f"# one\nFROM smollm2\n{line}\n")
    assert message.startswith(f"Modelfile, line {n_line}: ")
    assert says in message


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("../m.gguf", "leads out of the Modelfile's folder"),
        ("./a/../../m.gguf", "leads out"),
        ("/a/../m.gguf", "leads out"),
        ("a\\..\\..\\m.gguf", "leads out"),
        ("hf:o/r/../../m.gguf", "is refused"),
        ("o/r@../x", "is refused"),
    ],
)
def test_from_leads_nowhere_else(model: str, says: str) -> None:
    message = refusal(f"FROM {model}\n")
    assert message.startswith("Modelfile, line 1: ")
    assert says in message


def test_a_model_is_needed() -> None:
    for text in ("", "# FROM x\n", "SYSTEM x\n"):
        assert "Modelfile has no FROM line" in refusal(text)


def test_paths_are_relative_to_the_modelfile_and_names_stay_names(tmp_path: Path) -> None:
    (tmp_path / "o" / "r").mkdir(parents=True)
    for name in ("plain", "o/r/here.gguf"):
        (tmp_path / name).touch()
    for model, expected in {
        "./x": str(tmp_path / "x"),
        "x.gguf": str(tmp_path / "x.gguf"),
        "sub/x.gguf": str(tmp_path / "sub" / "x.gguf"),
        "plain": str(tmp_path / "plain"),
        '"o/r/here.gguf"': str(tmp_path / "o" / "r" / "here.gguf"),
        "o/r/gone.gguf": "o/r/gone.gguf",
        "hf:o/r": "hf:o/r",
        "o/r:Q4_0@v1": "o/r:Q4_0@v1",
        "smollm2:135m": "smollm2:135m",
        "https://example.org/m.gguf": "https://example.org/m.gguf",
        "/m.gguf": "/m.gguf",
        "~/m.gguf": str(Path.home() / "m.gguf"),
    }.items():
        assert parse_modelfile(f"FROM {model}", tmp_path / "Modelfile").model == expected


def test_jinja_that_looks_a_little_like_go_is_taken() -> None:
    template = "{{ range(3) }}{{ end }}{{ '.' if x }}{{ messages[0].content }}{# {{ .x }} #}"
    with pytest.raises(InvalidParameter, match="Go template"):
        parse_modelfile(f"FROM m\nTEMPLATE {template}", "Modelfile")
    for template in ("{{ range(3) }}{{ ending }}", "{% if x %}{{ '.' if x }}{% endif %}", "chatml"):
        assert parse_modelfile(f"FROM m\nTEMPLATE {template}", "M").chat_template == template


TEXT = st.text(st.sampled_from("ab \"'\n\t#\\:[]{}é."), max_size=12)
SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_k": st.integers(0, 100),
        "seed": st.none() | st.integers(0, 2**32 - 2),
        "max_tokens": st.none() | st.integers(0, 9),
        "stop": st.lists(TEXT.filter(bool), min_size=1, max_size=3).map(tuple),
        "logit_bias": st.dictionaries(st.integers(0, 9), st.floats(-9, 9), min_size=1),
        "ignore_eos": st.booleans(),
        "grammar": TEXT,
    },
)


@given(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(["smollm2", "/a b/m.gguf", '/"q".gguf']),
            "sampling": SAMPLING,
            "messages": st.lists(
                st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=3
            ).map(tuple),
        },
        optional={
            "n_ctx": st.integers(0, 9999),
            "n_gpu_layers": st.integers(-1, 99),
            "system_prompt": TEXT,
            "license": TEXT,
            "adapters": st.just((("/a b.gguf", 0.25), ("/c.gguf", 1.0))),
        },
    )
)
@settings(max_examples=100, deadline=None)
def test_what_is_written_reads_the_same(said: dict[str, Any]) -> None:
    preset = ModelConfig(**said)
    try:
        written = format_modelfile(preset)
    except InvalidParameter:  # lines that end with quotes
        assume(False)
    assert parse_modelfile(written, "Modelfile") == preset


def test_lines_that_end_with_quotes_are_refused_where_no_quotes_can_hold_them() -> None:
    for text in ('a"\nb', 'a "" \nb', '"', '""', '"a', 'a"', '"""'):
        preset = ModelConfig(model="m", system_prompt=text)
        assert parse_modelfile(format_modelfile(preset), "M") == preset
    with pytest.raises(InvalidParameter, match="SYSTEM has lines that end with quotes"):
        format_modelfile(ModelConfig(model="m", system_prompt='a"""\nb'))


def test_a_preset_without_a_model_has_no_modelfile() -> None:
    with pytest.raises(InvalidParameter, match="needs a model"):
        format_modelfile(ModelConfig(n_ctx=5))
