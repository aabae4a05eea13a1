"""The three loads: many short prompts, one shared system prompt, one long prompt beside streams.

Each function runs every contestant in turns, in processes of their own, and returns for each name a
list of runs (dicts of numbers), or a message where it couldn't be run.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.contestants import Contestant, Environments, Failed, run
from peers.measures import decode_rate, gaps, quantile, ttfts, whole_rate
from peers.prompts import Prompts

Runs = dict[str, Any]
N_WARMUP = 8  # tokens generated before anything is measured


@dataclass(frozen=True)
class Setting:
    """What holds for all contestants."""

    model: Path
    n_threads: int
    rounds: int
    timeout_s: float
    environments: Environments
    prompts: Prompts

    def job(self, n_parallel: int, n_ctx: int, loads: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a job that generates a little before its loads."""
        warmup = [
            {"prompt": self.prompts.fresh(16), "n_tokens": N_WARMUP} for _ in range(n_parallel)
        ]
        return {
            "model": str(self.model.absolute()),
            "n_parallel": n_parallel,
            "n_ctx": n_ctx,
            "n_threads": self.n_threads,
            "loads": [{"requests": warmup}, *loads],
        }

    def turns(
        self,
        contestants: Sequence[Contestant],
        job: Callable[[], dict[str, Any]],
        measure: Callable[[list[list[dict[str, Any]]]], dict[str, Any]],
    ) -> Runs:
        """Run each contestant once a round, all with the same job of that round.

        `measure` sees the records of the job's loads.
        """
        found: Runs = {contestant.name: [] for contestant in contestants}
        for _ in range(self.rounds):
            same = job()
            for contestant in contestants:
                name = contestant.name
                if isinstance(found[name], str):
                    continue
                try:
                    python = self.environments.python(contestant)
                    result = run(contestant, python, same, self.timeout_s)
                except Failed as error:
                    found[name] = str(error)
                    print(f"{name}: {error}", file=sys.stderr)
                    continue
                numbers = measure(result["loads"][1:])
                numbers["busy"], numbers["version"] = result["busy"], result["facts"]["version"]
                found[name].append(numbers)
                print(f"{name}: {numbers}", file=sys.stderr)
        return found


def decode(
    setting: Setting, contestants: Sequence[Contestant], n_parallel: int, n_tokens: int
) -> Runs:
    """Run n_parallel requests of 32 tokens at once, each answered with n_tokens."""

    def job() -> dict[str, Any]:
        prompts = [setting.prompts.fresh(32) for _ in range(n_parallel)]
        requests = [{"prompt": prompt, "n_tokens": n_tokens} for prompt in prompts]
        return setting.job(n_parallel, 512, [{"requests": requests}])

    def measure(loads: list[list[dict[str, Any]]]) -> dict[str, Any]:
        (records,) = loads
        return {"decode": decode_rate(records), "whole": whole_rate(records)}

    return setting.turns(contestants, job, measure)


def shared(
    setting: Setting,
    contestants: Sequence[Contestant],
    n_parallel: int,
    n_shared: int,
    n_tail: int,
    n_tokens: int,
) -> Runs:
    """Run n_parallel requests at once that begin with the same n_shared tokens."""

    def job() -> dict[str, Any]:
        prompts = setting.prompts.sharing(n_parallel, n_shared, n_tail)
        requests = [{"prompt": prompt, "n_tokens": n_tokens} for prompt in prompts]
        return setting.job(n_parallel, 1024, [{"requests": requests}])

    def measure(loads: list[list[dict[str, Any]]]) -> dict[str, Any]:
        (records,) = loads
        waits = ttfts(records)
        return {
            "n_evaluated": sum(record["n_evaluated"] for record in records),
            "n_least": n_shared + n_parallel * n_tail,
            "ttft_median": statistics.median(waits),
            "ttft_last": max(waits),
            "whole": whole_rate(records),
        }

    return setting.turns(contestants, job, measure)


def long_prompt(
    setting: Setting,
    contestants: Sequence[Contestant],
    n_prompt: int,
    n_ctx: int,
    *,
    n_streams: int = 3,
) -> Runs:
    """Run a long prompt beside streams, and then another one alone."""

    def request(n_tokens: int, n_answer: int, background: bool) -> dict[str, Any]:
        prompt = setting.prompts.fresh(n_tokens)
        return {"prompt": prompt, "n_tokens": n_answer, "background": background}

    def job() -> dict[str, Any]:
        streams = [request(32, n_ctx - 40, True) for _ in range(n_streams)]
        beside = {"after": 16, "requests": [*streams, request(n_prompt, 4, False)]}
        alone = {"requests": [request(n_prompt, 4, False)]}
        return setting.job(n_streams + 1, n_ctx, [beside, alone])

    def measure(loads: list[list[dict[str, Any]]]) -> dict[str, Any]:
        (*streams, late), (alone,) = loads
        found = gaps(streams, late["sent"], late["times"][0])
        return {
            "gap_median": quantile(found, 0.5),
            "gap_p95": quantile(found, 0.95),
            "gap_longest": max(found),
            "ttft_beside": ttfts([late])[0],
            "ttft_alone": ttfts([alone])[0],
            "streamed": len(found) / ttfts([late])[0],
        }

    return setting.turns(contestants, job, measure)
