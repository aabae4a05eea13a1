"""Signals end a watched call, and what it returned is not lost."""

from __future__ import annotations

import signal
import sys
import threading
import time

import pytest

from llamalite.ffi.watched import call_watched, watched

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGALRM")


class Alarm(Exception):
    pass


@pytest.fixture
def alarm() -> None:
    def ring(_number: int, _frame: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_a_signal_stops_the_call_and_its_result_is_discarded() -> None:
    stop, discarded = threading.Event(), []
    with pytest.raises(Alarm):
        call_watched(lambda: stop.wait(10) and 7, stop, discarded.append)
    assert discarded == [7]


@pytest.mark.usefixtures("alarm")
def test_a_call_that_cannot_be_stopped_is_waited_for() -> None:
    ended, discarded = [], []

    def slow(value: int) -> int:
        time.sleep(0.4)
        ended.append(value)
        return value

    with pytest.raises(Alarm):
        watched(slow, discarded.append)(5)
    assert ended == discarded == [5]


def test_results_and_exceptions_come_back() -> None:
    kept: list[int] = []
    assert call_watched(lambda: 3, threading.Event(), kept.append) == 3
    assert kept == []
    with pytest.raises(ZeroDivisionError):
        call_watched(lambda: 1 // 0, threading.Event())
