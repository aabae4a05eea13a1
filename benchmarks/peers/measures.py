"""From records (when requests were sent and tokens came) to the numbers of the tables."""

from __future__ import annotations

import statistics
from typing import Any

Records = list[dict[str, Any]]


def decode_rate(records: Records) -> float:
    """Return tokens/s of all requests together while all of them decode.

    Each request counts from its first token in that time to its last, so that no step counts by
    half. Where the requests wait for one another, all of each one's tokens count.
    """
    begin = max(record["times"][0] for record in records)
    end = min(record["times"][-1] for record in records)
    rates = [_rate([at for at in record["times"] if begin <= at <= end]) for record in records]
    if begin < end and all(rates):
        return sum(rates)
    return statistics.harmonic_mean([_rate(record["times"]) for record in records])


def _rate(times: list[float]) -> float:
    return (len(times) - 1) / (times[-1] - times[0]) if times and times[-1] > times[0] else 0.0


def whole_rate(records: Records) -> float:
    """Return generated tokens/s from the first request sent to the last token, prefill and all."""
    begin = min(record["sent"] for record in records)
    end = max(record["times"][-1] for record in records)
    return sum(len(record["times"]) for record in records) / (end - begin)


def ttfts(records: Records) -> list[float]:
    """Return seconds from sending to the first token, of each request."""
    return [record["times"][0] - record["sent"] for record in records]


def gaps(records: Records, begin: float, end: float) -> list[float]:
    """Return the seconds between neighbouring tokens that touch a span of time."""
    return [
        after - before
        for record in records
        for before, after in zip(record["times"], record["times"][1:], strict=False)
        if after > begin and before < end
    ]


def quantile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of them doesn't exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def median_of(runs: list[dict[str, Any]], name: str) -> float:
    """Return the median of a number over rounds."""
    return statistics.median(run[name] for run in runs)
