"""Markdown tables and plots of what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from peers.measures import median_of

Section = dict[str, Any]


def tables(results: dict[str, Any]) -> str:
    """Return a Markdown table for every section there is; numbers are medians over rounds."""
    parts = [_machine(results)]
    for name, write in (("decode", _decode), ("shared", _shared), ("long", _long)):
        if name in results:
            parts += ["", *write(results[name])]
    return "\n".join(parts)


def _machine(results: dict[str, Any]) -> str:
    return f"{results['date']}, {results['machine']}, {results['model']}"


def _decode(section: Section) -> Iterator[str]:
    counts = list(section["runs"])
    best = {
        count: _best(section["runs"][count], "xllamacpp", lambda runs: median_of(runs, "decode"))
        for count in counts
    }
    yield (
        f"Decode, tokens/s of all requests together ({section['n_tokens']} tokens each, "
        f"{section['rounds']} rounds; in brackets: times the best xllamacpp)"
    )
    yield ""
    yield from _head("", "version", *(f"{count} requests" for count in counts))
    for name in section["runs"][counts[0]]:
        cells = []
        for count in counts:
            runs = section["runs"][count][name]
            if isinstance(runs, str):
                cells.append(runs)
                continue
            rate = median_of(runs, "decode")
            ratio = f" ({rate / best[count]:.2f})" if best[count] else ""
            cells.append(f"{rate:.0f}{ratio}")
        yield _row(name, _version(section["runs"][counts[0]][name]), *cells)


def _shared(section: Section) -> Iterator[str]:
    runs_by_name = section["runs"]
    ours = median_of(runs_by_name["llamalite"], "ttft_median") if _ran(runs_by_name) else None
    yield (
        f"{section['n_parallel']} requests at once, {section['n_shared']} tokens in common and "
        f"{section['n_tail']} of their own, {section['n_tokens']} tokens of answer "
        f"({section['rounds']} rounds)"
    )
    yield ""
    yield from _head(
        "", "prompt tokens evaluated", "of common + own", "median TTFT", "times ours", "last TTFT",
        "tokens/s, all in all",
    )  # fmt: skip
    for name, runs in runs_by_name.items():
        if isinstance(runs, str):
            yield _row(name, runs, "", "", "", "", "")
            continue
        evaluated, wait = median_of(runs, "n_evaluated"), median_of(runs, "ttft_median")
        yield _row(
            name,
            f"{evaluated:.0f}",
            f"{evaluated / runs[0]['n_least']:.2f}",
            f"{wait:.2f} s",
            f"{wait / ours:.1f}" if ours else "",
            f"{median_of(runs, 'ttft_last'):.2f} s",
            f"{median_of(runs, 'whole'):.0f}",
        )


def _long(section: Section) -> Iterator[str]:
    yield (
        f"A prompt of {section['n_prompt']} tokens beside three streams ({section['rounds']} "
        "rounds); gaps between the streams' tokens while it is computed"
    )
    yield ""
    yield from _head(
        "", "median gap", "p95 gap", "longest gap", "streams' tokens/s", "TTFT alone",
        "TTFT beside", "beside ÷ alone",
    )  # fmt: skip
    for name, runs in section["runs"].items():
        if isinstance(runs, str):
            yield _row(name, runs, "", "", "", "", "", "")
            continue
        gaps = (median_of(runs, key) for key in ("gap_median", "gap_p95", "gap_longest"))
        alone, beside = median_of(runs, "ttft_alone"), median_of(runs, "ttft_beside")
        yield _row(
            name,
            *(f"{1000 * gap:.0f} ms" for gap in gaps),
            f"{median_of(runs, 'streamed'):.1f}",
            f"{alone:.1f} s",
            f"{beside:.1f} s",
            f"{beside / alone:.2f}",
        )


def _best(runs_by_name: dict[str, Any], prefix: str, number: Any) -> float | None:
    found = [
        number(runs)
        for name, runs in runs_by_name.items()
        if name.startswith(prefix) and not isinstance(runs, str)
    ]
    return max(found, default=None)


def _ran(runs_by_name: dict[str, Any]) -> bool:
    return isinstance(runs_by_name.get("llamalite"), list)


def _version(runs: Any) -> str:
    return "" if isinstance(runs, str) else str(runs[0]["version"])


def _head(*cells: str) -> Iterable[str]:
    return (_row(*cells), "|" + "---|" * len(cells))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def plot(results: dict[str, Any], folder: Path) -> list[Path]:
    """Draw the sections there are; returns the files written, none without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        print("no plots: pip install matplotlib")
        return []
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "llamalite"
    written = []
    if "decode" in results:
        written.append(_plot_decode(results, folder / "engine_decode.svg"))
    if "long" in results:
        written.append(_plot_long(results, folder / "engine_long_prompt.svg"))
    return written


def _plot_decode(results: dict[str, Any], path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    section = results["decode"]["runs"]
    counts = list(section)
    names = [name for name in section[counts[0]] if not isinstance(section[counts[0]][name], str)]
    for place, name in enumerate(names):
        rates = [median_of(section[count][name], "decode") for count in counts]
        where = [group + 0.8 * (place + 0.5) / len(names) - 0.4 for group in range(len(counts))]
        axes.bar(where, rates, 0.8 / len(names), label=name)
    axes.set_xticks(range(len(counts)), [f"{count} at once" for count in counts])
    axes.set_ylabel("tokens/s, all requests together")
    axes.set_title(f"Decode: {_machine(results)}", fontsize=9)
    axes.legend(fontsize=8)
    return _save(figure, path)


def _plot_long(results: dict[str, Any], path: Path) -> Path:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    budgets = []
    for name, runs in results["long"]["runs"].items():
        if isinstance(runs, str):
            continue
        ratio = median_of(runs, "ttft_beside") / median_of(runs, "ttft_alone")
        gap = 1000 * median_of(runs, "gap_p95")
        axes.plot(gap, ratio, "o" if name.startswith("llamalite") else "s")
        axes.annotate(name, (gap, ratio), textcoords="offset points", xytext=(6, 4), fontsize=8)
        if name == "llamalite" or "budget" in name:
            budgets.append((gap, ratio))
    if budgets:
        axes.plot(*zip(*sorted(budgets), strict=True), "-", linewidth=1, zorder=0)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("p95 gap between the streams' tokens, ms")
    axes.set_ylabel("long prompt's first token, beside ÷ alone")
    axes.axvline(150, linestyle=":", linewidth=1)
    axes.axhline(2.5, linestyle=":", linewidth=1)
    axes.set_title(
        f"{results['long']['n_prompt']} tokens beside 3 streams: {_machine(results)}", fontsize=9
    )
    return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    return path
