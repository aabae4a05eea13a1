"""llamalite's server beside xllamacpp's llama-server, over HTTP, clients on the same machine.

python benchmarks/server_peers.py --xllamacpp PYTHON

Each server runs alone, in turns, with as many slots as there are clients; greedy streams of a fixed
number of tokens, distinct prompts. The engine without a server has the same load in the same run.
What was measured is kept in server_peers.json.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from llamalite.models.resolve import resolve_model

HERE = Path(__file__).parent
N_CTX = 512
N_TOKENS = {1: 128, 4: 96, 16: 64, 64: 48}
_numbers = iter(range(10**9))


def main() -> None:
    given = parse()
    model = resolve_model(given.model)
    results: dict[str, Any] = {"model": model.stem, "rounds": given.rounds, "runs": {}}
    for n_clients in given.clients:
        runs: dict[str, list[dict[str, Any]]] = {}
        for _ in range(given.rounds):
            for name, start in contestants(given, model, n_clients):
                runs.setdefault(name, []).append(start())
                print(n_clients, name, runs[name][-1], flush=True)
        results["runs"][n_clients] = runs
        (given.out / "server_peers.json").write_text(json.dumps(results, indent=1) + "\n")
    print(tables(results))
    plot(results, given.out)


def contestants(given: argparse.Namespace, model: Path, n_clients: int) -> list[tuple[str, Any]]:
    place = [str(model), str(n_clients), str(N_CTX)]
    serve = [sys.executable, "-m", "llamalite", "serve", "--port=0", f"--parallel={n_clients}",
             f"--ctx-size={N_CTX}", "--quiet", str(model)]  # fmt: skip
    peer = [str(given.xllamacpp), str(HERE / "servers" / "xllamacpp_server.py"), *place]
    alone = [sys.executable, str(HERE / "servers" / "engine_alone.py"), *place]
    return [
        ("llamalite", lambda: over_http(serve, n_clients)),
        ("xllamacpp", lambda: over_http(peer, n_clients)),
        ("engine alone", lambda: without_http(alone, n_clients)),
    ]


def prompts(n_clients: int) -> list[str]:
    return [
        f"{next(_numbers)} is a number, and a story about it begins like this: once upon a time"
        for _ in range(n_clients)
    ]


@contextlib.contextmanager
def running(command: list[str], ready: str, **pipes: Any) -> Iterator[tuple[Any, str]]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **pipes
    )
    try:
        for line in process.stdout or ():
            if found := re.search(ready, line):
                yield process, found[0]
                return
        raise RuntimeError(f"{command} ended")
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
        for one in family:
            one.terminate()
        process.wait(60)


def over_http(command: list[str], n_clients: int) -> dict[str, Any]:
    with running(command, r"http://[\w.:]+") as (process, address):
        load(address, prompts(1), 8)  # whatever is only done once
        before = cpu_s(process.pid)
        result = load(address, prompts(n_clients), N_TOKENS[n_clients])
        after = cpu_s(process.pid)
        used = {f"{name}_cpu_s": round(after[name] - before[name], 2) for name in after}
        return {**result, **used}


def without_http(command: list[str], n_clients: int) -> dict[str, Any]:
    with running(command, "ready", stdin=subprocess.PIPE) as (process, _):

        def ask(texts: list[str], n_tokens: int) -> dict[str, Any]:
            print(json.dumps({"prompts": texts, "n_tokens": n_tokens}), file=process.stdin,
                  flush=True)  # fmt: skip
            return json.loads(process.stdout.readline())

        ask(prompts(1), 8)
        result = ask(prompts(n_clients), N_TOKENS[n_clients])
        if n_clients == 1:
            result["ttft_s"] = statistics.median(ask(prompts(1), 2)["ttft_s"] for _ in range(20))
        return result


def cpu_s(pid: int) -> dict[str, float]:
    """Return processor seconds of the server's own process, its engine's, and this one."""

    def of(process: psutil.Process) -> float:
        times = process.cpu_times()
        return times.user + times.system

    server = psutil.Process(pid)
    engine = sum(of(child) for child in server.children(recursive=True))
    return {"server": of(server), "engine": engine, "client": of(psutil.Process())}


def load(address: str, texts: list[str], n_tokens: int) -> dict[str, Any]:
    counts: list[int] = []
    firsts: list[float] = []
    threads = [
        threading.Thread(target=stream, args=(address, text, n_tokens, counts, firsts))
        for text in texts
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall_s = time.perf_counter() - started
    if len(counts) != len(texts):
        raise RuntimeError("a client failed")
    result = {"tokens_per_s": sum(counts) / wall_s, "ttft_s": statistics.median(firsts),
              "wall_s": round(wall_s, 2)}  # fmt: skip
    if len(texts) == 1 and n_tokens > 8:
        for _ in range(20):
            stream(address, prompts(1)[0], 2, [], firsts)
        result["ttft_s"] = statistics.median(firsts[1:])
    return result


def stream(address: str, text: str, n_tokens: int, counts: list[int], firsts: list[float]) -> None:
    parts = urllib.parse.urlsplit(address)
    body = json.dumps({"prompt": text, "max_tokens": n_tokens, "temperature": 0, "stream": True,
                       "ignore_eos": True, "stream_options": {"include_usage": True}})  # fmt: skip
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    started = time.perf_counter()
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.request("POST", "/v1/completions", body)
    first, last = None, b""
    for line in connection.getresponse():
        if line.startswith(b"data: {"):
            if first is None:
                first = time.perf_counter() - started
            last = line
    connection.close()
    counts.append(json.loads(last[6:])["usage"]["completion_tokens"])
    firsts.append(first or 0.0)


def tables(results: dict[str, Any]) -> str:
    lines = ["| clients | | tokens/s | of xllamacpp | of the engine alone | first token | CPU s: "
             "engine | server | client |", "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for n_clients, runs in results["runs"].items():
        for name, tries in runs.items():

            def mid(key: str, tries: Any = tries) -> float:
                return statistics.median(one.get(key, 0.0) for one in tries)

            def against(other: str, tries: Any = tries, runs: Any = runs) -> float:
                pairs = zip(tries, runs[other], strict=True)
                return statistics.median(a["tokens_per_s"] / b["tokens_per_s"] for a, b in pairs)

            lines.append(
                f"| {n_clients} | {name} | {mid('tokens_per_s'):.1f} | {against('xllamacpp'):.2f} "
                f"| {against('engine alone'):.2f} | {mid('ttft_s') * 1e3:.0f} ms "
                f"| {mid('engine_cpu_s'):.1f} | {mid('server_cpu_s'):.1f} "
                f"| {mid('client_cpu_s'):.1f} |"
            )
    return "\n".join(lines)


def plot(results: dict[str, Any], folder: Path) -> None:
    """Draw tokens/s over clients."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plot: matplotlib isn't installed")
        return
    mpl.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    counts = [int(count) for count in results["runs"]]
    for name in next(iter(results["runs"].values())):
        rates = [
            statistics.median(one["tokens_per_s"] for one in runs[name])
            for runs in results["runs"].values()
        ]
        axes.plot(counts, rates, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("streaming clients")
    axes.set_ylabel("tokens/s, all together")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(folder / "server_peers.svg", bbox_inches="tight")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2:135m", help="path or name (%(default)s)")
    parser.add_argument("--xllamacpp", type=Path, required=True, help="a Python that has it")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results and plot")
    return parser.parse_args()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
