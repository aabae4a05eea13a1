"""`llamalite run` as a child process: the real command line, library and models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llamalite import LLM
from llamalite.ffi.library import Library

ROOT = Path(__file__).parents[2]
SKY = "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")


class Runner:
    """Starts `llamalite run` with the library the other native tests use."""

    def __init__(self, folder: Path) -> None:
        self.env = {
            **os.environ,
            "LLAMALITE_LIB": str(folder),
            "PYTHONPATH": str(ROOT),
        }
        self.env.pop("LLAMALITE_LOG", None)

    def start(self, *args: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "llamalite", "run", *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.env,
        )

    def __call__(self, *args: str | Path, stdin: str = "") -> tuple[int, str, str]:
        child = self.start(*args)
        out, err = child.communicate(stdin.encode(), timeout=120)
        return child.returncode, out.decode(), err.decode()


@pytest.fixture(scope="session")
def run(library: Library) -> Runner:
    return Runner(library.files.folder)


def test_stdout_holds_the_generated_text_alone(run: Runner, llm: LLM, smollm2: Path) -> None:
    expected = llm.generate(SKY, temperature=0.0, max_tokens=16).text
    code, out, err = run(smollm2, SKY, "--raw", "-t", "0", "-n", "16")
    assert (code, out) == (0, expected + "\n")
    assert expected not in err
    # The other form, as opencode writes it.
    code, out, _ = run(
        "--model", smollm2, "--prompt", SKY, "--raw", "-t", "0", "--max-tokens", "16"
    )
    assert (code, out) == (0, expected + "\n")


def test_a_chat_prompt_comes_from_argument_stdin_or_file(
    run: Runner, llm: LLM, smollm2: Path, tmp_path: Path
) -> None:
    prompt = "Name one fruit."
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
    expected = llm.chat(messages, temperature=0.0, max_tokens=12).text.rstrip("\n") + "\n"
    flags = ["-q", "--system", "Be brief.", "-t", "0", "-n", "12"]
    assert run(smollm2, prompt, *flags) == (0, expected, "")
    assert run(smollm2, *flags, stdin=prompt + "\n") == (0, expected, "")
    assert run(smollm2, "-", *flags, stdin=prompt) == (0, expected, "")
    (tmp_path / "prompt").write_text(prompt + "\n")
    assert run(smollm2, "-f", tmp_path / "prompt", *flags) == (0, expected, "")


def test_json_is_one_object_with_everything(run: Runner, library: Library, stories: Path) -> None:
    code, out, _ = run(stories, "Once upon", "--raw", "-t", "0", "-n", "8", "--json", "--stats")
    found = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    assert len(found["tokens"]) == 8
    assert found["finish_reason"] == "length"
    assert found["usage"]["completion_tokens"] == 8
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + 8
    assert found["timings"]["decode_tokens_per_s"] > 0
    assert found["timings"]["ttft_s"] > 0
    assert found["model"] == str(stories)
    assert found["library"] == library.release
    assert found["text"]


def test_stats_go_to_stderr(run: Runner, library: Library, stories: Path) -> None:
    code, out, err = run(
        stories, "Once upon", "--raw", "-n", "8", "--threads", "1", "--stats", "-q"
    )
    assert code == 0
    assert "tokens/s" not in out
    assert err.count("tokens/s") == 2
    assert library.release in err
    assert "1 threads" in err
    assert "length" in err


def test_seed_grammar_and_stop(run: Runner, stories: Path) -> None:
    def text(*args: str) -> str:
        code, out, err = run(stories, "Once upon a time", "--raw", "-q", *args)
        assert (code, err) == (0, "")
        return out

    assert text("--seed", "7", "-n", "20") == text("--seed", "7", "-n", "20")
    # Hot enough that this small model can't tell the same story three times by chance.
    hot = ("-t", "3", "--min-p", "0", "--top-k", "0", "--top-p", "1", "-n", "20")
    assert len({text(*hot) for _ in range(3)}) > 1
    assert text("--grammar", 'root ::= "yes" | "no"', "-n", "20") in {"yes\n", "no\n"}
    greedy = text("-t", "0", "-n", "20").removesuffix("\n")
    stop = greedy[8:12]
    assert text("-t", "0", "-n", "20", "--stop", stop) == greedy.split(stop)[0] + "\n"


def test_verbose_brings_the_native_log_to_stderr(run: Runner, stories: Path) -> None:
    code, out, err = run(stories, "Once", "--raw", "-n", "2", "-vv")
    assert code == 0
    assert "llamalite.native" in err
    assert "llamalite.native" not in out
    assert "llamalite.native" not in run(stories, "Once", "--raw", "-n", "2")[2]


@POSIX
def test_ctrl_c_stops_cleanly_and_keeps_the_text(run: Runner, smollm2: Path) -> None:
    args = (smollm2, SKY, "--raw", "--ignore-eos", "-c", "8192", "--stats")
    child = run.start(*args)
    assert child.stdout is not None
    first = child.stdout.read(20)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert len(first) == 20
    assert out.endswith(b"\n")
    assert b"cancelled" in err
    assert b"Traceback" not in err


@POSIX
def test_ctrl_c_while_loading(run: Runner, smollm2: Path) -> None:
    child = run.start(smollm2, SKY, "--raw", "--ignore-eos", "-n", "-1", "-vv")
    assert child.stderr is not None
    child.stderr.readline()  # the first line of the native log: loading has begun
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert len(out) < 1000
    assert b"Traceback" not in err


@POSIX
def test_a_reader_that_goes_away_ends_it_silently(run: Runner, smollm2: Path) -> None:
    child = run.start(smollm2, SKY, "--raw", "--ignore-eos", "-q")
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(5)
    child.stdout.close()
    assert child.wait(timeout=60) == 141
    assert child.stderr.read() == b""


def test_failures_are_one_line_each(run: Runner, stories: Path, tmp_path: Path) -> None:
    text_file = tmp_path / "model.gguf"
    text_file.write_text("not a model")
    cases = [
        (2, "has 602 tokens", (stories, "word " * 200, "--raw", "-c", "32")),
        (2, "left-recursive", (stories, "x", "--grammar", "root ::= root")),
        (4, "model.gguf", (text_file, "x")),
        (5, "sees none", (stories, "x", "-ngl", "5")),
        (2, "999999", (stories, "x", "--raw", "-n", "1", "--logit-bias", "999999+1")),
    ]
    for expected, says, args in cases:
        code, out, err = run(*args, "-q")
        assert (code, out) == (expected, "")
        assert says in err
        assert err.startswith("llamalite: ")
        assert err.count("\n") == 1


def test_a_faulty_library_is_one_line(library: Library, stories: Path, tmp_path: Path) -> None:
    (tmp_path / "libllama.so").write_text("not a library")
    code, out, err = Runner(tmp_path)(stories, "x", "-q")
    assert (code, out) == (3, "")
    assert str(tmp_path) in err
    assert err.count("\n") == 1
