from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from cli_process import ROOT

from llamalite.cli.bars import Lines, Meter, duration, size_text


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_speed_counts_what_came_now_and_not_what_was_here() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.expect([("a", 1000), ("b", None)])
    meter.at("a", 600)
    assert (meter.received, meter.total, meter.bytes_per_s) == (600, None, None)
    meter.expect([("b", 500)])
    clock.now = 2.0
    meter.at("a", 800)
    assert (meter.total, meter.bytes_per_s) == (1500, 100)
    assert meter.pace(200) == "100 bytes/s, 2 s left"
    assert meter.pace(None) == "100 bytes/s"
    meter.at("b", 400)  # kept from an earlier pull
    assert meter.bytes_per_s == 100


def test_speed_is_that_of_the_last_seconds() -> None:
    clock = Clock()
    meter = Meter(clock)
    meter.expect([("a", 10_000)])
    for second in range(60):
        clock.now = float(second)
        meter.at("a", 10 * second if second < 40 else 400 + 100 * (second - 40))
    assert meter.bytes_per_s == pytest.approx(100)


def test_lines_come_at_tenths_of_the_whole_once_it_takes_time() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines(said.append, clock)
    lines.expect([("o/r/a.gguf", 1_000_000), ("o/r/b.gguf", 3_000_000)])
    for received in range(0, 1_000_001, 100_000):
        clock.now += 0.2
        lines.at("o/r/a.gguf", received)
    lines.at("o/r/b.gguf", 1_000_000)
    assert said == [
        "a.gguf: 10 % of 4.0 MB for all 2 files, 500.0 kB/s, 7 s left",
        "a.gguf: 20 % of 4.0 MB for all 2 files, 500.0 kB/s, 6 s left",
        "b.gguf: 50 % of 4.0 MB for all 2 files, 500.0 kB/s, 4 s left",
    ]


def test_a_short_transfer_and_one_of_unknown_size_say_nothing() -> None:
    clock, said = Clock(), list[str]()
    lines = Lines(said.append, clock)
    lines.expect([("a", 100)])
    for received in range(0, 101, 10):
        lines.at("a", received)
    lines = Lines(said.append, clock)
    lines.expect([("a", None)])
    for received in range(0, 101, 10):
        clock.now += 10
        lines.at("a", received)
    assert said == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes() -> None:
    sizes = (7, 98_362_432, 5 * 10**9, 21_657_700_000_000)
    assert [size_text(n) for n in sizes] == ["7 bytes", "98.4 MB", "5.0 GB", "21.7 TB"]


BARS = """
import sys, time
from llamalite.cli.bars import shown_pull
with shown_pull() as report:
    report.say("before")
    report.expect([("o/r/first.gguf", 2000), ("o/r/second.gguf", 2000)])
    for file in ("o/r/first.gguf", "o/r/second.gguf"):
        for received in range(0, 2001, 250):
            report.at(file, received)
            time.sleep(0.2)
        report.say("got [bold]" + file)
print("answer")
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
def test_a_terminal_gets_a_bar_per_file_and_one_in_all() -> None:
    import pty

    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", BARS],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=ROOT,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": "1"},
    )
    os.close(theirs)
    drawn = b""
    while True:
        try:
            fresh = os.read(ours, 65536)
        except OSError:  # the child closed its end
            break
        if not fresh:
            break
        drawn += fresh
    os.close(ours)
    out, _ = child.communicate(timeout=30)
    assert (child.returncode, out) == (0, b"answer\n")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", drawn.decode())
    assert "before\n" in text
    assert "got [bold]o/r/first.gguf\n" in text
    for name in ("first.gguf", "second.gguf"):
        # Slower than it should be where others use the machine.
        speed = r"[\d.]+ (kB|bytes)/s, \d+ s left"
        assert re.search(rf"^{re.escape(name)} .*[12]\.\d/2\.0 kB .*{speed}", text, re.M), name
    done = [float(size) for size in re.findall(r"^all .*?([\d.]+)/4\.0 kB", text, re.M)]
    assert len(done) > 3
    assert done == sorted(done)
