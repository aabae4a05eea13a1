"""Sixty-four clients at once: streams, hang-ups, slow readers, bad requests.

30 s; LLAMALITE_LOAD_S=300 for five minutes. What each answer must be is known: a grammar of the
client's own allows one text alone.
"""

from __future__ import annotations

import collections
import http.client
import json
import os
import random
import statistics
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.live_server import Server, serving

SECONDS = float(os.environ.get("LLAMALITE_LOAD_S", "30"))
N_CLIENTS = 64
N_SLOTS = 16


@pytest.fixture(scope="module")
def loaded(smollm2: Path) -> Iterator[Server]:
    with serving(
        str(smollm2), "--alias=m", "--ctx-size=512", f"--parallel={N_SLOTS}", "--quiet"
    ) as server:
        yield server


class Client(threading.Thread):
    """Asks until the time is over; counts what came of it."""

    def __init__(self, number: int, address: str, deadline: float) -> None:
        super().__init__()
        self._number, self._deadline = number, deadline
        self._place = urllib.parse.urlsplit(address)
        self._random = random.Random(number)
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._n_asked = 0

    def run(self) -> None:
        while time.monotonic() < self._deadline:
            kind = self._random.choices(
                [self._whole, self._stream, self._slow, self._hang_up, self._bad],
                [2, 4, 2, 5, 2],
            )[0]
            self._n_asked += 1
            try:
                self.counts[kind()] += 1
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                self.wrong.append(f"{kind.__name__}: {error!r}")

    def _mine(self) -> str:
        return f"client {self._number} asks question {self._n_asked}"

    def _ask(self, **more: Any) -> http.client.HTTPResponse:
        said = {"prompt": "Say it:", "max_tokens": 60, **more}
        self._connection = http.client.HTTPConnection(
            self._place.hostname or "", self._place.port, timeout=120
        )
        self._connection.request("POST", "/v1/completions", json.dumps(said))
        return self._connection.getresponse()

    def _check(self, text: str) -> None:
        if text != self._mine():
            self.wrong.append(f"{self._mine()!r} brought {text!r}")

    def _whole(self) -> str:
        response = self._ask(grammar=f'root ::= "{self._mine()}"')
        said = json.loads(response.read())
        self._connection.close()
        if response.status == 503:
            time.sleep(0.2)
            return "full"
        self._check(said["choices"][0]["text"])
        return "whole"

    def _stream(self, pause_s: float = 0.0) -> str:
        response = self._ask(grammar=f'root ::= "{self._mine()}"', stream=True)
        if response.status == 503:
            response.read()
            self._connection.close()
            time.sleep(0.2)
            return "full"
        text, is_done = "", False
        for line in response:
            if line.startswith(b"data: {"):
                text += json.loads(line[6:])["choices"][0]["text"]
                time.sleep(pause_s)
            is_done |= line.startswith(b"data: [DONE]")
        self._connection.close()
        self._check(text if is_done else f"{text} and no end")
        return "stream"

    def _slow(self) -> str:
        self._stream(0.1)
        return "slow"

    def _hang_up(self) -> str:
        response = self._ask(stream=True, ignore_eos=True, max_tokens=400)
        for _ in range(self._random.randrange(12)):
            response.readline()
        self._connection.close()
        return "hung up"

    def _bad(self) -> str:
        more = self._random.choice(
            [{"temperature": -1}, {"max_tokens": "x"}, {"grammar": "root ::= ("}, {"n": 0}]
        )
        response = self._ask(**more)
        response.read()
        self._connection.close()
        if response.status != 400:
            self.wrong.append(f"{more} brought {response.status}")
        return "bad"


def get(server: Server, path: str) -> Any:
    place = urllib.parse.urlsplit(server.address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
    connection.request("GET", path)
    data = connection.getresponse().read()
    connection.close()
    return json.loads(data)


def resident_mib(server: Server) -> float:
    top = psutil.Process(server.process.pid)
    return sum(one.memory_info().rss for one in (top, *top.children(recursive=True))) / 2**20


def run_clients(server: Server, seconds: float) -> list[Client]:
    clients = [
        Client(number, server.address, time.monotonic() + seconds) for number in range(N_CLIENTS)
    ]
    for client in clients:
        client.start()
    return clients


def test_nothing_is_lost_mixed_up_or_kept(loaded: Server) -> None:
    clients = run_clients(loaded, SECONDS)
    started_at, before = time.monotonic(), 0.0
    latencies = []
    while any(client.is_alive() for client in clients):
        started = time.perf_counter()
        assert get(loaded, "/health") == {"status": "ok"}
        latencies.append(time.perf_counter() - started)
        time.sleep(0.1)
        if not before and time.monotonic() > started_at + SECONDS / 3:
            before = resident_mib(loaded)  # caches and pools are filled
    wrong = [line for client in clients for line in client.wrong]
    counts = sum((client.counts for client in clients), collections.Counter())
    deadline = time.monotonic() + 10
    while any(slot["is_processing"] for slot in get(loaded, "/slots")):
        assert time.monotonic() < deadline, "slots stay taken"
        time.sleep(0.1)
    grown = resident_mib(loaded) - before
    p95 = statistics.quantiles(latencies, n=20)[-1]
    print(f"{dict(counts)}; /health p95 {p95 * 1e3:.0f} ms; grown by {grown:.1f} MiB")
    assert not wrong, wrong[:5]
    assert counts["stream"] > 10
    assert counts["hung up"] > 10
    assert p95 < 0.1
    assert grown < 60
