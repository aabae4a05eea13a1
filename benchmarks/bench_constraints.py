"""Answers that follow JSON schemas: are they valid, do they end, and what does it cost?

    python benchmarks/bench_constraints.py validity      # 20 answers for each of 25 schemas
    python benchmarks/bench_constraints.py speed         # constrained against free, in turns

Run nothing else beside it.
"""

from __future__ import annotations

import argparse
import collections
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema

from llamalite.config import SamplingConfig
from llamalite.constraint.spec import Constraint
from llamalite.engine.engine import Engine
from llamalite.engine.request import EngineOptions, GenerationRequest
from llamalite.engine.result import GenerationResult

SCHEMAS = Path(__file__).parent / "schemas"
N_CTX = 2048
STEERED = 16
"""An answer that ends so near its limit was most likely steered to its end."""
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant that answers in JSON.<|im_end|>\n"
    "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
SAMPLERS: dict[str, dict[str, Any]] = {
    "default": {},
    "pure": {"top_k": 0, "top_p": 1.0, "min_p": 0.0},
}


def load_schemas(names: str) -> dict[str, str]:
    wanted = names.split(",") if names else sorted(path.stem for path in SCHEMAS.glob("*.json"))
    return {name: (SCHEMAS / f"{name}.json").read_text() for name in wanted}


def is_unbounded(schema: Any) -> bool:
    """Say whether some string or list in a schema has no longest."""
    if isinstance(schema, list):
        return any(map(is_unbounded, schema))
    if not isinstance(schema, dict):
        return False
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds if isinstance(kinds, list) else []
    closed = {"enum", "const", "maxLength", "pattern", "format"}
    if "string" in kinds and not closed & set(schema):
        return True
    if "array" in kinds and "maxItems" not in schema and schema.get("items") is not False:
        return True
    return any(map(is_unbounded, schema.values()))


def prompt_for(engine: Engine, text: str) -> list[int]:
    schema = json.loads(text)
    shown = json.dumps(schema, separators=(",", ":"))
    ask = f"Write {schema['description']}, as JSON that follows this schema:\n{shown}"
    vocab = engine.loaded.model.vocab
    return vocab.tokenize(CHAT.format(ask), add_special=False, parse_special=True)


def complaint(text: str, answer: GenerationResult) -> str:
    """Return what jsonschema has against an answer, "" if nothing."""
    schema = json.loads(text)
    kind = jsonschema.validators.validator_for(schema)
    try:
        errors = list(kind(schema, format_checker=kind.FORMAT_CHECKER).iter_errors(
            json.loads(answer.text)
        ))  # fmt: skip
    except ValueError as error:
        return f"no JSON: {error}"
    return errors[0].message if errors else ""


def validity(engine: Engine, args: argparse.Namespace) -> int:
    schemas = load_schemas(args.schemas)
    n_unbounded = sum(is_unbounded(json.loads(text)) for text in schemas.values())
    print(f"{len(schemas)} schemas, {n_unbounded} with an unbounded string or list")
    print(f"| schema | {' | '.join(['stop', 'length', 'invalid', 'tokens (median)', 'most'])} |")
    print("|---|---|---|---|---|---|")
    total: collections.Counter[str] = collections.Counter()
    started, n_tokens = time.perf_counter(), 0
    for number, (name, text) in enumerate(schemas.items()):
        sampling = SamplingConfig(
            temperature=1.0, seed=args.seed + 1000 * number, max_tokens=args.max_tokens,
            **SAMPLERS[args.samplers],
        )  # fmt: skip
        request = GenerationRequest(
            prompt_for(engine, text), sampling, n=args.answers,
            constraint=Constraint("json_schema", text),
        )  # fmt: skip
        answers = engine.submit(request).results()
        reasons = collections.Counter(answer.finish_reason for answer in answers)
        wrong = [
            (answer.text, why)
            for answer in answers
            if answer.finish_reason == "stop" and (why := complaint(text, answer))
        ]
        lengths = [len(answer.tokens) for answer in answers]
        total["steered"] += sum(length > args.max_tokens - STEERED for length in lengths)
        n_tokens += sum(lengths)
        total += reasons
        total["invalid"] += len(wrong)
        print(
            f"| {name} | {reasons['stop']} | {reasons['length']} | {len(wrong)} | "
            f"{statistics.median(lengths):.0f} | {max(lengths)} |",
            flush=True,
        )
        for answer, why in wrong[:3]:
            print(f"  INVALID: {why}: {answer[:300]!r}")
        if args.show:
            for answer in answers[: args.show]:
                print(f"  {answer.finish_reason}: {answer.text[: args.width]!r}")
    took = time.perf_counter() - started
    n_answers = total["stop"] + total["length"] + total["constraint"]
    print(
        f"{n_answers} answers at temperature 1 ({args.samplers} samplers): {total['stop']} end in "
        f"stop, {total['length']} in length ({total['length'] / n_answers:.1%}), "
        f"{total['constraint']} in constraint; {total['invalid']} invalid; "
        f"{total['steered']} came within {STEERED} tokens of the limit; "
        f"{n_tokens} tokens, {took:.0f} s"
    )
    return int(total["invalid"] > 0 or total["length"] > 0.05 * n_answers)


def endless(text: str) -> str:
    """Return a schema of lists so long that no answer ends before its tokens are spent."""
    schema = json.loads(text)
    inner = {key: schema.pop(key) for key in ("$defs", "definitions") if key in schema}
    for key in ("$schema", "$id"):
        schema.pop(key, None)
    return json.dumps({"type": "array", "items": schema, "minItems": 1000, **inner})


def rate(engine: Engine, prompts: list[list[int]], texts: list[str] | None, n: int) -> float:
    """Return decode tokens per second over all answers from the last first token on."""
    sampling = SamplingConfig(temperature=1.0, seed=1, max_tokens=n, ignore_eos=texts is None)
    generations = [
        engine.submit(
            GenerationRequest(
                prompt,
                sampling,
                constraint=Constraint("json_schema", texts[i]) if texts else None,
            )
        )
        for i, prompt in enumerate(prompts)
    ]
    results = [generation.result() for generation in generations]
    assert all(len(result.tokens) == n for result in results), "an answer ended early"
    slowest = max(result.timings.decode_s for result in results)
    return len(prompts) * (n - 1) / slowest


def speed(engine: Engine, args: argparse.Namespace) -> int:
    own = [text for text in load_schemas(args.schemas).values() if '"#"' not in text]
    worst = 1.0
    print("| requests | free, tokens/s | constrained, tokens/s | ratio (median of pairs) | range |")
    print("|---|---|---|---|---|")
    for size in map(int, args.sizes.split(",")):
        texts = [endless(own[i % len(own)]) for i in range(size)]
        prompts = [engine.loaded.model.vocab.tokenize(f"Number {i}: [") for i in range(size)]
        rate(engine, prompts, texts, 8)
        pairs = []
        for turn in range(args.rounds):
            order = [None, texts] if turn % 2 else [texts, None]
            found = {kind is None: rate(engine, prompts, kind, args.tokens) for kind in order}
            pairs.append((found[True], found[False]))
        ratios = [constrained / free for free, constrained in pairs]
        worst = min(worst, statistics.median(ratios))
        print(
            f"| {size} | {statistics.median(pair[0] for pair in pairs):.0f} "
            f"| {statistics.median(pair[1] for pair in pairs):.0f} "
            f"| **{statistics.median(ratios):.3f}** | {min(ratios):.3f} to {max(ratios):.3f} |",
            flush=True,
        )
    return int(worst < 0.93)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["validity", "speed"])
    parser.add_argument("--model", default="SmolLM2-135M-Instruct.Q4_1")
    parser.add_argument("--schemas", default="", help="names, with commas between them")
    parser.add_argument("--answers", type=int, default=20, help="answers for each schema")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--samplers", choices=sorted(SAMPLERS), default="default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="answers to print for each schema")
    parser.add_argument("--width", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=96, help="tokens of an answer, for speed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", default="1,4,16", help="requests at once, for speed")
    parser.add_argument("--threads", type=int, default=None)
    args = parser.parse_args()
    settings = {"n_threads": args.threads} if args.threads else {}
    options = EngineOptions(n_parallel=16, n_queue=args.answers, adapt_threads=False)
    with Engine.load(args.model, options, n_ctx=N_CTX, **settings) as engine:
        return {"validity": validity, "speed": speed}[args.what](engine, args)


if __name__ == "__main__":
    sys.exit(main())
