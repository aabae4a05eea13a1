"""How fast a process that dies is started anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamalite.engine.process.backoff import MOST_DEATHS_AT_LOAD, Backoff


def test_the_first_death_costs_no_wait_and_later_ones_little() -> None:
    backoff = Backoff()
    delays = [backoff.died(1.0) for _ in range(20)]
    assert delays[0] == 0
    assert delays == sorted(delays)  # type: ignore[type-var]
    assert delays[-1] == 0.25


def test_a_long_life_is_a_new_beginning() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff.died(0.1)
    assert backoff.died(60.0) == 0


def test_deaths_at_load_are_given_up() -> None:
    backoff = Backoff()
    delays = [backoff.died(None) for _ in range(MOST_DEATHS_AT_LOAD)]
    assert delays[-1] is None
    assert None not in delays[:-1]


@given(st.lists(st.none() | st.floats(0, 100), max_size=50))
def test_it_is_given_up_for_deaths_in_a_row_alone(lives: list[float | None]) -> None:
    backoff, in_a_row = Backoff(), 0
    for served_s in lives:
        in_a_row = in_a_row + 1 if served_s is None else 0
        delay = backoff.died(served_s)
        assert (delay is None) == (in_a_row >= MOST_DEATHS_AT_LOAD)
        assert delay is None or 0 <= delay <= 2
        if delay is None:
            break
