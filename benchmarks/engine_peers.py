"""llamalite's engine beside xllamacpp, llama-cpp-python and bare loops, side by side.

python benchmarks/engine_peers.py decode shared long

Each contestant runs in a process of its own, one after another and in turns, on the same model
file with the same prompts, threads and context for each sequence; greedy, with a fixed number of
tokens. Peers are installed by pip as anyone would, each into a virtual environment of its own. What
was measured is kept in engine_peers.json; sections that aren't asked for stay as they are there.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import re
import signal
import sys
from pathlib import Path
from typing import Any

from peers import report, scenarios
from peers.contestants import Contestant, Environments
from peers.prompts import Prompts

from llamalite.engine.threads import default_n_threads
from llamalite.models.resolve import resolve_model

HERE = Path(__file__).parent

OURS = Contestant("llamalite", "llamalite")
POOL = Contestant("llamalite, pool", "llamalite", {"kv_unified": True})
SERVER = Contestant("xllamacpp", "xllamacpp")
SERVER_POOL = Contestant("xllamacpp, pool", "xllamacpp", {"kv_unified": True})
SERVER_HTTP = Contestant("xllamacpp, HTTP", "xllamacpp", {"http": True})
BARE = (
    Contestant("bare loop, streams", "bare", {"unified": False, "flash_attn": 0}),
    Contestant("bare loop, pool", "bare", {"unified": True, "flash_attn": 0}),
)
SEQUENTIAL = Contestant("llama-cpp-python", "llama-cpp-python")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that workers end, too
    given = parse()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "engine_peers.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if given.sections:
        model = resolve_model(given.model)
        environments = Environments(given.venvs, dict(given.python))
        setting = scenarios.Setting(
            model, given.threads, given.rounds, given.timeout, environments, Prompts(model)
        )
        results["date"] = datetime.date.today().isoformat()
        results["machine"] = f"{_processor()}, {given.threads} threads"
        results["model"] = model.stem
        for name in given.sections:
            results[name] = {"rounds": given.rounds, **SECTIONS[name](setting, given)}
            path.write_text(json.dumps(results, indent=1) + "\n")
    if not results:
        sys.exit("nothing was measured yet: name at least one of decode, shared, long")
    print(report.tables(results))
    for plot in report.plot(results, given.out):
        print(f"\n{plot}")


def decode(setting: scenarios.Setting, given: argparse.Namespace) -> dict[str, Any]:
    field = (OURS, POOL, *BARE, SERVER, SERVER_POOL, SERVER_HTTP, SEQUENTIAL)
    runs = {
        str(count): scenarios.decode(setting, chosen(field, given), count, given.tokens)
        for count in given.parallel
    }
    return {"n_tokens": given.tokens, "runs": runs}


def shared(setting: scenarios.Setting, given: argparse.Namespace) -> dict[str, Any]:
    field = (OURS, POOL, SERVER, SERVER_POOL, SEQUENTIAL)
    sizes = {
        "n_parallel": max(given.parallel),
        "n_shared": given.shared_tokens,
        "n_tail": given.tail_tokens,
        "n_tokens": given.shared_answer,
    }
    return {**sizes, "runs": scenarios.shared(setting, chosen(field, given), **sizes)}


def long_prompt(setting: scenarios.Setting, given: argparse.Namespace) -> dict[str, Any]:
    budgets = [
        Contestant(f"llamalite, budget {budget:g} s", "llamalite", {"step_budget_s": budget})
        for budget in given.budgets
    ]
    small = Contestant("xllamacpp, n_batch 64", "xllamacpp", {"n_batch": 64, "n_ubatch": 64})
    field = (OURS, *budgets, POOL, SERVER, SERVER_POOL, small)
    n_ctx = -(-(given.long_tokens + 64) // 256) * 256
    runs = scenarios.long_prompt(setting, chosen(field, given), given.long_tokens, n_ctx)
    return {"n_prompt": given.long_tokens, "runs": runs}


SECTIONS = {"decode": decode, "shared": shared, "long": long_prompt}


def chosen(field: tuple[Contestant, ...], given: argparse.Namespace) -> list[Contestant]:
    return [one for one in field if re.search(given.only, one.name)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", metavar="|".join(SECTIONS), help="none: report only")
    parser.add_argument("--model", default="smollm2:135m", help="path or name (%(default)s)")
    parser.add_argument("--threads", type=int, default=default_n_threads())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", metavar="REGEX", help="contestants by name")
    parser.add_argument("--parallel", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--tokens", type=int, default=128, help="of each answer in 'decode'")
    parser.add_argument("--shared-tokens", type=int, default=700)
    parser.add_argument("--tail-tokens", type=int, default=18)
    parser.add_argument("--shared-answer", type=int, default=32)
    parser.add_argument("--long-tokens", type=int, default=8000)
    parser.add_argument("--budgets", type=float, nargs="*", default=[0.05, 0.2, 0.4])
    parser.add_argument("--timeout", type=float, default=1800, help="seconds for one process")
    parser.add_argument(
        "--venvs", type=Path, default=Path.home() / ".cache" / "llamalite-benchmarks"
    )
    parser.add_argument(
        "--python", type=_pair, action="append", default=[], metavar="PEER=PYTHON",
        help="an interpreter that has the peer",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results and plots")
    given = parser.parse_args()
    for name in given.sections:
        if name not in SECTIONS:
            parser.error(f"{name} is none of {', '.join(SECTIONS)}")
    return given


def _pair(text: str) -> tuple[str, Path]:
    peer, _, python = text.partition("=")
    return peer, Path(python)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
