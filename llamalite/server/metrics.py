"""/metrics: what the engines have done, for Prometheus; llama-server's names beside our own.

Owns names and meanings. Imports falcon, prometheus_client and its siblings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import falcon
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from llamalite.engine.stats import BOUNDS_S, EngineStats, Histogram
from llamalite.server.site import Site

_SETTLE_S = 2.0
"""How long a scrape waits for a web process that is asked for the first time."""
_COUNTERS = {
    "prompt_tokens": "Tokens of all prompts",
    "cached_tokens": "Tokens of prompts that were not computed anew",
    "completion_tokens": "Tokens generated",
    "embedded_tokens": "Tokens of embedded texts",
    "steps": "Batches computed",
    "decode_rows": "Tokens computed one by one",
    "prefill_rows": "Tokens computed in chunks",
    "n_preempted": "How often a sequence had to make room",
    "n_restarts": "How often an engine's process was started anew",
}
_SECONDS = {
    "decode_s": "Seconds in batches without prompt tokens",
    "prefill_s": "Seconds in batches with prompt tokens",
}
_GAUGES = {
    "n_running": "Sequences that have a slot",
    "n_waiting": "Sequences that wait for one",
    "n_slots": "Slots",
    "n_cells": "Cells of the cache",
    "n_cells_used": "Cells in use, shared ones once for each sequence",
    "n_threads": "Threads of the last decode step",
}
_HISTOGRAMS = {
    "queue_s": "Seconds from submission to the first computed token",
    "ttft_s": "Seconds from submission to the first token of the answer",
    "gaps_s": "Seconds between two tokens of an answer",
}


class Metrics:
    """Answers scrapes."""

    def __init__(self, site: Site) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Engines(site))

    def on_get(self, _http: falcon.Request, response: falcon.Response) -> None:
        """Write what there is now."""
        response.content_type = CONTENT_TYPE_LATEST
        response.data = generate_latest(self._registry)


class _Engines(Collector):
    def __init__(self, site: Site) -> None:
        self._site = site

    def collect(self) -> Iterable[Metric]:
        self._site.preload_soon(_SETTLE_S)
        loaded = self._site.fleet.loaded().values()
        stats = {served.public_name: served.engine.stats() for served in loaded}
        yield from _own(stats)
        yield from _llama_servers(list(stats.values()))


def _own(stats: dict[str, EngineStats]) -> Iterator[Metric]:
    for name, doc in {**_COUNTERS, **_SECONDS}.items():
        plain = name.removeprefix("n_").removesuffix("_s")
        unit = "_seconds" if name in _SECONDS else ""
        counter = CounterMetricFamily(f"llamalite_{plain}{unit}", doc, labels=["model"])
        for model, one in stats.items():
            counter.add_metric([model], getattr(one, name))
        yield counter
    for name, doc in _GAUGES.items():
        gauge = GaugeMetricFamily(f"llamalite_{name.removeprefix('n_')}", doc, labels=["model"])
        for model, one in stats.items():
            gauge.add_metric([model], getattr(one, name))
        yield gauge
    finished = CounterMetricFamily(
        "llamalite_answers", "Answers by how they ended", labels=["model", "finish_reason"]
    )
    for model, one in stats.items():
        for reason, count in one.finished.items():
            finished.add_metric([model, reason], count)
    yield finished
    for name, doc in _HISTOGRAMS.items():
        plain = f"llamalite_{name.removesuffix('_s')}_seconds"
        family = HistogramMetricFamily(plain, doc, labels=["model"])
        for model, one in stats.items():
            histogram: Histogram = getattr(one, name)
            family.add_metric([model], _buckets(histogram), histogram.sum_s)
        yield family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, BOUNDS_S), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))


def _llama_servers(stats: list[EngineStats]) -> Iterator[Metric]:
    """Yield llama-server's metrics, all models together."""

    def total(name: str) -> float:
        return float(sum(getattr(one, name) for one in stats))

    computed = total("prefill_rows")
    for name, doc, value in (
        ("prompt_tokens", "Number of prompt tokens processed", computed),
        ("prompt_seconds", "Prompt process time", total("prefill_s")),
        ("tokens_predicted", "Number of generation tokens processed", total("completion_tokens")),
        ("tokens_predicted_seconds", "Predict process time", total("decode_s")),
        ("n_decode", "Total number of llama_decode() calls", total("steps")),
    ):
        yield CounterMetricFamily(f"llamacpp:{name}", doc, value)
    for name, doc, value in (
        ("prompt_tokens_seconds", "Average prompt throughput in tokens/s",
         _rate(computed, total("prefill_s"))),
        ("predicted_tokens_seconds", "Average generation throughput in tokens/s",
         _rate(total("pure_rows"), total("decode_s"))),
        ("requests_processing", "Number of requests processing", total("n_running")),
        ("requests_deferred", "Number of requests deferred", total("n_waiting")),
        ("n_busy_slots_per_decode", "Average number of busy slots per llama_decode() call",
         _rate(total("decode_rows"), total("steps"))),
    ):  # fmt: skip
        yield GaugeMetricFamily(f"llamacpp:{name}", doc, value)


def _rate(count: float, of: float) -> float:
    return count / of if of > 0 else 0.0
