"""Answer a prompt. Only the generated text goes to stdout; notices go to stderr.

Usage:
  llamalite run [options] [--stop=TEXT]... [--logit-bias=SPEC]...
                [--dry-sequence-breaker=TEXT]... [--verbose]... [--] [MODEL] [PROMPT]

MODEL is a path to a GGUF file, a name of your own (`llamalite alias`, `llamalite create`), a short
name (smollm2:135m), owner/repo:QUANT, owner/repo/FILE.gguf, or the beginning of an installed one's.
Without it the model is the configured default_model, at first smollm2:135m; a lone argument is the
model. What isn't given is as configured for the model or in general (`llamalite config show`), else
as stated in brackets. PROMPT is the user's message. Without it the prompt is what stdin holds,
unless that is a terminal; so it is with `-`. One line end at the end of stdin or a file is dropped.
A prompt that begins with a dash goes behind `--`. The answer is ended with a line end if it has
none.

Model and prompt:
  -m, --model=MODEL                 the model, instead of the first argument
  -p, --prompt=TEXT                 the prompt, instead of the last argument
  -f, --file=FILE                   read the prompt from a file
  --system=TEXT                     system message, instead of a configured one
  --raw                             no chat template: the prompt is the text to continue
  --template=NAME                   chat template: a name, a file, or Jinja text

Length and choice of tokens:
  -n, --max-tokens=N                most tokens to generate, -1 = until the context is full
  -s, --seed=N                      same seed, same text; -1 = random (the default)
  -t, --temperature=T               0 = always the likeliest token [default 0.8]
  --top-k=N                         0 = off [default 40]
  --top-p=P                         1 = off [default 0.95]
  --min-p=P                         0 = off [default 0.05]
  --typical=P                       1 = off [default 1]
  --top-nsigma=N                    below 0 = off [default -1]
  --xtc-probability=P               0 = off [default 0]
  --xtc-threshold=P                 above 0.5 = off [default 0.1]
  --dynatemp-range=T                temperature ± this, 0 = off [default 0]
  --dynatemp-exp=X                  curve of the dynamic temperature [default 1]
  --mirostat=VERSION                0 = off, 1 or 2 [default 0]
  --mirostat-lr=X                   learning rate [default 0.1]
  --mirostat-ent=X                  target surprise [default 5]
  --adaptive-target=P               target probability, below 0 = off [default -1]
  --adaptive-decay=X                memory of adaptive-p [default 0.9]
  --samplers=NAMES                  order of the samplers, separated by ';'
  --stop=TEXT                       end before this text; may be repeated
  --ignore-eos                      go on after the end of the answer
  --logit-bias=SPEC                 TOKEN_ID+BIAS or TOKEN_ID-BIAS, as 15043+1; may be repeated

Repetition:
  --repeat-penalty=X                1 = off [default 1]
  --repeat-last-n=N                 tokens looked back at, 0 = off, -1 = all [default 64]
  --presence-penalty=X              0 = off [default 0]
  --frequency-penalty=X             0 = off [default 0]
  --dry-multiplier=X                0 = off [default 0]
  --dry-base=X                      growth of the penalty [default 1.75]
  --dry-allowed-length=N            repeats up to this length are free [default 2]
  --dry-penalty-last-n=N            tokens looked back at, 0 = off, -1 = all [default -1]
  --dry-sequence-breaker=TEXT       text that repeats don't span; may be repeated

Constraint:
  --grammar=TEXT                    GBNF grammar
  --grammar-file=FILE               GBNF grammar in a file

Machine:
  -c, --ctx-size=N                  context in tokens, 0 = the model's own [default at most 8192]
  -b, --batch-size=N                most tokens computed in one call [default 2048]
  --ubatch-size=N                   most tokens computed at once [default 512]
  --threads=N                       threads for decoding [default physical cores]
  --threads-batch=N                 threads for prefill [default as --threads]
  --gpu-layers=N                    layers on the GPU, -1 = all [default as many as fit]
  --cache-type-k=T                  type of cached keys: f16, q8_0, q4_0 … [default f16]
  --cache-type-v=T                  type of cached values [default f16]
  --force                           load the model even if it doesn't fit into memory

Output:
  --json                            one JSON object on stdout instead of text
  --stats                           speed and counts on stderr
  -q, --quiet                       no notices
  -v, --verbose                     native log on stderr; -vv more. Or LLAMALITE_LOG=debug|info|…
  -h, --help                        print this

llama.cpp's other names for these work too (-ngl, -ub, -tb, -sys, -hf, --temp, --n-predict …),
but -t is the temperature here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamalite.cli import terminal
from llamalite.cli.flags import SETTING_FIELDS, by_option, read_sampling, read_settings
from llamalite.cli.options import Options, checked_text, parse, read_file, read_stdin, shown
from llamalite.errors import InvalidParameter

if TYPE_CHECKING:
    from llamalite.llm import LLM, GenerationResult, GenerationStream
    from llamalite.models.resolve import Resolved


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    options = parse(__doc__, "run", argv)
    if options is None:
        return 0
    job = read_job(options)
    return answer(job, options)


@dataclass(frozen=True)
class Job:
    """What is asked for, checked as far as it can be before anything is loaded."""

    model: str | None  # None = the configured one
    prompt: str
    system: str | None
    sampling: dict[str, Any]  # fields of SamplingConfig that were given
    settings: dict[str, Any]  # keyword arguments of LLM


def read_job(options: Options) -> Job:
    """Turn options into a job.

    Raises:
        InvalidParameter: an option's value is wrong, options exclude each other, or there is no
            prompt.
        ConstraintError: the grammar is faulty.
    """
    for name in ("--system", "--template"):
        if options.flag("--raw") and options.text(name) is not None:
            raise InvalidParameter(f"--raw uses no chat template, so {name} can't go with it")
    sampling = read_sampling(options)
    settings = read_settings(options)
    model, prompt = read_model_and_prompt(options)
    return Job(model, prompt, options.text("--system"), sampling, settings)


def read_model_and_prompt(options: Options) -> tuple[str | None, str]:
    """Return model, None for the configured one, and prompt, from wherever they were given."""
    model, argument = options.text("MODEL"), options.text("PROMPT")
    if options.text("--model") is not None:
        if argument is not None:
            raise InvalidParameter("with --model there is only one argument, the prompt")
        model, argument = options.text("--model"), model
    given = {
        name: value
        for name, value in (
            ("PROMPT", argument),
            ("--prompt", options.text("--prompt")),
            ("--file", options.text("--file")),
        )
        if value is not None
    }
    if len(given) > 1:
        raise InvalidParameter(f"the prompt is given {len(given)} times: {' and '.join(given)}")
    if model == "":
        raise InvalidParameter("the model's name is empty")
    prompt = _read_prompt(given, model)
    if not prompt:
        taken = "" if given or not model else f" ({shown(model)} was taken for the model)"
        raise InvalidParameter(f"the prompt is empty{taken}", param="prompt")
    return model, prompt


def _read_prompt(given: dict[str, str], model: str | None) -> str:
    source, value = next(iter(given.items()), ("stdin", "-"))
    if source == "stdin" and (sys.stdin is None or sys.stdin.isatty()):
        taken = f" ({shown(model)} was taken for the model)" if model else ""
        raise InvalidParameter(
            f"there is no prompt: give it as an argument, on stdin or with -f FILE{taken}"
        )
    if source != "--file" and value != "-":
        return checked_text(value, "the prompt")
    if source == "--prompt":
        return value
    text = read_stdin() if value == "-" else read_file(value, "--file")
    for line_end in ("\r\n", "\n"):
        if text.endswith(line_end):
            return text.removesuffix(line_end)
    return text


def answer(job: Job, options: Options) -> int:
    """Load the model, generate, print; return the exit code."""
    from llamalite.cli.bars import shown_pull
    from llamalite.config.layers import load_config
    from llamalite.ffi import native_log
    from llamalite.models.resolve import resolve

    native_log.configure({0: None, 1: "info"}.get(options.count("--verbose"), "debug"))
    quiet = options.flag("--quiet")
    say: Callable[[str], None] = terminal.be_silent if quiet else terminal.say
    with shown_pull(quiet) as report:
        resolved = resolve(job.model or load_config().default_model, say, report)
    with load(job, resolved, say, draw_progress=terminal.is_terminal() and not quiet) as llm:
        if options.flag("--raw"):
            stream = llm.stream(job.prompt, **job.sampling)
        else:
            system = [] if job.system is None else [{"role": "system", "content": job.system}]
            messages = [*system, {"role": "user", "content": job.prompt}]
            stream = llm.stream_chat(messages, **job.sampling)
        code = deliver(stream, show=not options.flag("--json"))
        result = stream.result
        if options.flag("--json"):
            print_json(llm, result)
        if options.flag("--stats"):
            terminal.table(stats(llm, result))
        return code


def load(job: Job, model: Resolved, say: Callable[[str], None], *, draw_progress: bool) -> LLM:
    """Load the model, after fetching the library if there is none."""
    # Imported only now: numpy and the rest take longer than finding out that a model is missing.
    from llamalite.core.ready import ready_library
    from llamalite.llm import LLM

    if draw_progress:
        ready_library()  # without `say` a fetch draws its own bar
    try:
        return LLM(model, say=say, **job.settings)
    except InvalidParameter as error:
        raise by_option(error, SETTING_FIELDS) from None


def deliver(stream: GenerationStream, *, show: bool) -> int:
    """Read a stream to its end or to Ctrl-C, printing if `show`; return the exit code."""
    code, last = 0, ""
    try:
        for piece in stream:
            if show:
                terminal.write(piece)
            last = piece
    except KeyboardInterrupt:
        code = 130
    finally:
        stream.close()
    if show and not last.endswith("\n"):
        terminal.write("\n")
    return code


def print_json(llm: LLM, result: GenerationResult) -> None:
    """Print a result and what produced it as one JSON object."""
    about = {
        "model": str(llm.model_path),
        "library": llm.library_release,
        "devices": list(llm.devices),
        "n_threads": llm.n_threads,
        "n_ctx": llm.n_ctx,
    }
    terminal.write(json.dumps({**result.to_dict(), **about}, ensure_ascii=False) + "\n")


def stats(llm: LLM, result: GenerationResult) -> list[tuple[str, str]]:
    """Return names and values of what `--stats` prints."""
    usage, times = result.usage, result.timings
    return [
        ("model", str(llm.model_path)),
        ("library", f"libllama {llm.library_release}"),
        ("device", f"{', '.join(llm.devices)}; {llm.n_threads} threads"),
        ("load", f"{times.load_s:.2f} s"),
        (
            "prefill",
            f"{usage.prompt_tokens} tokens in {times.prefill_s:.3f} s, "
            f"{times.prefill_tokens_per_s:.1f} tokens/s",
        ),
        ("TTFT", f"{times.ttft_s:.3f} s"),
        (
            "decode",
            f"{usage.completion_tokens} tokens, all but the first in {times.decode_s:.3f} s, "
            f"{times.decode_tokens_per_s:.1f} tokens/s",
        ),
        ("finish reason", result.finish_reason),
    ]
