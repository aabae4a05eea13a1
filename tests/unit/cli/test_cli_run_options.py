from __future__ import annotations

import io
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from cli_process import llamalite

from llamalite.cli import flags, run
from llamalite.cli.options import Options, parse
from llamalite.config import SamplingConfig
from llamalite.errors import InvalidParameter, LlamaliteError


def options(*args: str) -> Options:
    parsed = parse(run.__doc__, "run", list(args))
    assert parsed is not None
    return parsed


def stdin_holds(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_every_sampling_flag_reaches_its_field() -> None:
    args = [
        *("-t", "0.5", "--top-k", "7", "--top-p", "0.6", "--min-p", "0.1", "--typical", "0.9"),
        *("--top-nsigma", "2", "--xtc-probability", "0.3", "--xtc-threshold", "0.2"),
        *("--dynatemp-range", "0.4", "--dynatemp-exp", "1.5", "--mirostat", "2"),
        *("--mirostat-lr", "0.2", "--mirostat-ent", "4", "--adaptive-target", "0.5"),
        *("--adaptive-decay", "0.8", "--repeat-penalty", "1.1", "--repeat-last-n", "-1"),
        *("--presence-penalty", "-0.5", "--frequency-penalty", "1e-1", "--dry-multiplier", "0.8"),
        *("--dry-base", "1.5", "--dry-allowed-length", "3", "--dry-penalty-last-n", "9"),
        *("--dry-sequence-breaker", "x", "--samplers", "top_k;typ_p;temperature", "-n", "12"),
        *("--seed", "42", "--stop", "END", "--stop", "\n", "--ignore-eos"),
        *("--logit-bias", "5+1.5", "--logit-bias", "6-inf", "--grammar", 'root ::= "a"'),
    ]
    given = flags.read_sampling(options(*args))
    assert SamplingConfig(**given) == SamplingConfig(
        temperature=0.5, top_k=7, top_p=0.6, min_p=0.1, typical_p=0.9, top_n_sigma=2.0,
        xtc_probability=0.3, xtc_threshold=0.2, dynatemp_range=0.4, dynatemp_exponent=1.5,
        mirostat=2, mirostat_eta=0.2, mirostat_tau=4.0, adaptive_target=0.5, adaptive_decay=0.8,
        repeat_penalty=1.1, repeat_last_n=-1, presence_penalty=-0.5, frequency_penalty=0.1,
        dry_multiplier=0.8, dry_base=1.5, dry_allowed_length=3, dry_penalty_last_n=9,
        dry_sequence_breakers=("x",), samplers=("top_k", "typical_p", "temperature"),
        max_tokens=12, seed=42, stop=("END", "\n"), ignore_eos=True,
        logit_bias={5: 1.5, 6: float("-inf")}, grammar='root ::= "a"',
    )  # fmt: skip


def test_no_flags_are_as_configured_and_the_usage_states_the_defaults() -> None:
    assert flags.read_sampling(options()) == {}
    assert flags.read_settings(options()) == {}
    usage = run.__doc__ or ""
    for name, field in {**flags.WHOLE_FIELDS, **flags.NUMBER_FIELDS}.items():
        line = next(line for line in usage.splitlines() if f"{name}=" in line)
        default = next(spec.default for spec in fields(SamplingConfig) if spec.name == field)
        assert f"[default {default:g}]" in line


def test_minus_one_is_no_limit_and_a_random_seed() -> None:
    given = flags.read_sampling(options("-n", "-1", "--seed", "-1"))
    assert given == {"max_tokens": None, "seed": None}


def test_machine_flags_reach_the_model() -> None:
    args = ["-c", "512", "-b", "64", "-ub", "32", "--threads", "1", "-tb", "2", "-ngl", "all"]
    assert flags.read_settings(options(*args)) == {
        "n_ctx": 512,
        "n_batch": 64,
        "n_ubatch": 32,
        "n_threads": 1,
        "n_threads_batch": 2,
        "n_gpu_layers": -1,
    }
    assert flags.read_settings(options("--gpu-layers", "0")) == {"n_gpu_layers": 0}
    assert flags.read_settings(options("-ngl", "auto")) == {}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["m", "Hi"], ("m", "Hi")),
        (["--model", "m", "--prompt", "Hi"], ("m", "Hi")),
        (["--model", "m", "--prompt", "Hi", "-t", "0.2", "--max-tokens", "9"], ("m", "Hi")),
        (["--model", "m", "Hi"], ("m", "Hi")),
        (["m", "--prompt", "Hi"], ("m", "Hi")),
        (["-p", "Hi"], (None, "Hi")),
        (["m", "--", "-5 degrees?"], ("m", "-5 degrees?")),
        (["m", "-p", "-"], ("m", "-")),
        (["m"], ("m", "from stdin")),
        ([], (None, "from stdin")),
        (["m", "-"], ("m", "from stdin")),
        (["-m", "m", "-"], ("m", "from stdin")),
        (["m", "-f", "-"], ("m", "from stdin")),
        (["m", " spaces stay \n"], ("m", " spaces stay \n")),
    ],
)
def test_model_and_prompt(
    monkeypatch: pytest.MonkeyPatch, args: list[str], expected: tuple[str | None, str]
) -> None:
    stdin_holds(monkeypatch, b"from stdin\n")
    assert run.read_model_and_prompt(options(*args)) == expected


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        (b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b"a", "a"), (b" a ", " a "),
        ("é日".encode(), "é日"),
    ],
)  # fmt: skip
def test_one_line_end_is_dropped_from_files(tmp_path: Path, content: bytes, prompt: str) -> None:
    path = tmp_path / "prompt.txt"
    path.write_bytes(content)
    assert run.read_model_and_prompt(options("m", "-f", str(path))) == ("m", prompt)


def test_template_by_name_text_or_file(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.write_text("{{ messages }}")
    assert flags.read_settings(options("--template", "chatml"))["chat_template"] == "chatml"
    assert flags.read_settings(options("--template", "{{ x }}"))["chat_template"] == "{{ x }}"
    found = flags.read_settings(options("--template", str(path)))
    assert found["chat_template"] == "{{ messages }}"


USAGE_ERRORS = [
    (["m", "p", "-xyz"], "unknown option -xyz"),
    (["m", "p", "-fa"], "llama.cpp's -fa"),
    (["m", "-dash prompt"], "goes behind '--'"),
    (["m", "p", "--nonsense"], "unknown option --nonsense"),
    (["m", "p", "--temper", "1"], "did you mean --temperature?"),
    (["m", "p", "--top-k", "abc"], "--top-k must be a whole number, not 'abc'"),
    (["m", "p", "--top-k", "1.5"], "--top-k must be a whole number"),
    (["m", "p", "--top-k", "٣"], "--top-k must be a whole number"),
    (["m", "p", "--top-k", "9" * 5000], "--top-k must be a whole number"),
    (["m", "p", "--top-k", ""], "--top-k must be a whole number, not ''"),
    (["m", "p", "--temp", "nan"], "--temperature must be a number"),
    (["m", "p", "--temp", "1_0"], "--temperature must be a number"),
    (["m", "p", "--temp", "-1"], "--temperature is -1.0, outside"),
    (["m", "p", "--top-p", "1.5"], "--top-p is 1.5, outside"),
    (["m", "p", "-n", "-2"], "--max-tokens is -2, outside"),
    (["m", "p", "--seed", "4294967296"], "--seed is 4294967296, outside"),
    (["m", "p", "--threads", "0"], "--threads must be at least 1"),
    (["m", "p", "-ngl", "-2"], "--gpu-layers must be at least -1"),
    (["m", "p", "-ngl", "some"], "--gpu-layers must be a whole number"),
    (["m", "p", "--samplers", "top_k;magic"], "--samplers names 'magic'"),
    (["m", "p", "--logit-bias", "x"], "--logit-bias must be TOKEN_ID+BIAS"),
    (["m", "p", "--stop="], "--stop must be non-empty"),
    (["m", "p", "--grammar", "root ::= root"], "left-recursive"),
    (["m", "p", "--grammar", 'root ::= "a'], "line 1, column 10"),
    (["m", "p", "--grammar-file", "/no/such/file"], "can't read /no/such/file: No such file"),
    (["m", "p", "--grammar", 'root ::= "a"', "--grammar-file", "-"], "exclude each other"),
    (["m", "-f", "/no/such/file"], "--file: can't read /no/such/file: No such file"),
    (["m", "-f", "/"], "--file: can't read /: Is a directory"),
    (["m", "p", "--template", "/no/such.jinja"], "--template: can't read"),
    (["m", "p", "--raw", "--system", "s"], "--raw uses no chat template"),
    (["m", "p", "-p", "q"], "the prompt is given 2 times: PROMPT and --prompt"),
    (["-m", "m", "p", "q"], "only one argument"),
    (["m", "p", "q"], "quotes"),
    (["m", ""], "the prompt is empty"),
    (["", "p"], "the model's name is empty"),
    (["m", "-p", ""], "the prompt is empty"),
    (["m"], "the prompt is empty"),
    ([], "the prompt is empty"),
]


@pytest.mark.parametrize(
    ("args", "says"), USAGE_ERRORS, ids=[" ".join(a)[:50] for a, _ in USAGE_ERRORS]
)
def test_wrong_usage_is_refused(
    monkeypatch: pytest.MonkeyPatch, args: list[str], says: str
) -> None:
    stdin_holds(monkeypatch, b"")
    with pytest.raises(LlamaliteError) as caught:
        run.read_job(options(*args))
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "index", [0, 1, 2, 3, 5, 22, 26, 32, 33, 36], ids=lambda i: " ".join(USAGE_ERRORS[i][0])[:30]
)
def test_wrong_usage_exits_2_with_one_line_and_no_library(tmp_path: Path, index: int) -> None:
    args, says = USAGE_ERRORS[index]
    env = {
        "LLAMALITE_HOME": str(tmp_path),
        "LLAMALITE_LIB": "/nonexistent",
        "LLAMALITE_OFFLINE": "1",
    }
    done = llamalite("run", *args, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("llamalite: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_is_one_line_before_any_library_is_looked_for(tmp_path: Path) -> None:
    env = {
        "LLAMALITE_HOME": str(tmp_path),
        "LLAMALITE_LIB": "/nonexistent",
        "LLAMALITE_OFFLINE": "1",
    }
    done = llamalite("run", "/no/such/model.gguf", "Hi", env=env)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("llamalite: ")
    assert "/no/such/model.gguf" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are Unicode on Windows")
def test_bytes_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    env = {"LLAMALITE_HOME": str(tmp_path), "LLAMALITE_OFFLINE": "1"}
    argument = llamalite("run", "m", b"\xff\xfe", env=env)
    assert (argument.returncode, argument.stderr) == (
        2,
        "llamalite: PROMPT is not valid UTF-8\n",
    )
    piped = llamalite("run", "m", stdin=b"ab\xff", env=env)
    assert piped.returncode == 2
    assert "stdin is not valid UTF-8 (byte 2)" in piped.stderr


def test_a_terminal_without_prompt_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_holds(monkeypatch, b"")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(LlamaliteError, match="'Why is it so\\?' was taken for the model"):
        run.read_model_and_prompt(options("Why is it so?"))


def test_a_number_of_any_length_is_read_at_once() -> None:
    started = time.process_time()
    with pytest.raises(InvalidParameter, match="--temperature must be a number, not '111"):
        flags.read_sampling(options("m", "hi", "--temp", "1" * 100_000 + "x"))
    assert time.process_time() - started < 2
