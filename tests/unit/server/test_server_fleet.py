from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from llamalite.errors import DoesNotFit, EngineClosed, ModelLoadError, QueueFull
from llamalite.server.fleet import Fleet


class Ship:
    def __init__(self, key: str) -> None:
        self.key, self.is_closed = key, False

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


class Yard:
    """Loads ships, as many as fit, each after `hold` lets it."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.made: list[Ship] = []
        self.go = threading.Event()
        self.go.set()

    def load(self, key: str) -> Ship:
        assert self.go.wait(10)
        if key.startswith("bad"):
            raise ModelLoadError(f"{key} is bad")
        if sum(not ship.is_closed for ship in self.made) >= self.room:
            raise DoesNotFit(f"{key} doesn't fit")
        ship = Ship(key)
        self.made.append(ship)
        return ship


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def in_threads(count: int, action: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=action) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_a_model_is_loaded_once_however_many_ask() -> None:
    yard = Yard()
    fleet = Fleet(yard.load)
    yard.go.clear()
    got: list[Ship] = []

    def ask() -> None:
        with fleet.use("a") as ship:
            got.append(ship)

    threads = in_threads(8, ask)
    wait_for(lambda: fleet.is_loading)
    yard.go.set()
    for thread in threads:
        thread.join()
    assert len(yard.made) == 1
    assert got == yard.made * 8


def test_a_failed_load_is_told_to_all_and_tried_again_later() -> None:
    yard = Yard()
    fleet = Fleet(yard.load)
    for _ in range(2):
        with pytest.raises(ModelLoadError):
            fleet.take("bad")
    assert fleet.loaded() == {}
    assert not fleet.is_loading


def test_the_least_recently_used_makes_room() -> None:
    yard = Yard(room=2)
    fleet = Fleet(yard.load)
    for key in ("a", "b", "a", "c"):
        with fleet.use(key):
            time.sleep(0.002)
    assert set(fleet.loaded()) == {"a", "c"}


def test_what_is_in_use_is_not_unloaded() -> None:
    yard = Yard(room=1)
    fleet = Fleet(yard.load)
    with fleet.use("a") as ship, pytest.raises(DoesNotFit):
        fleet.take("b")
    assert not ship.is_closed
    with fleet.use("b"):
        assert ship.is_closed


def test_no_more_than_allowed_are_loaded_and_the_next_waits() -> None:
    yard = Yard()
    fleet = Fleet(yard.load, most=1)
    fleet.take("a")
    done = threading.Event()

    def ask() -> None:
        with fleet.use("b"):
            done.set()

    (thread,) = in_threads(1, ask)
    assert not done.wait(0.1)
    fleet.give_back("a")
    assert done.wait(10)
    thread.join()
    assert set(fleet.loaded()) == {"b"}


def test_an_unused_model_goes_after_a_while_and_a_kept_one_stays() -> None:
    yard = Yard()
    fleet = Fleet(yard.load, keep_alive_s=0.1)
    fleet.keep("kept")
    with fleet.use("a"):
        time.sleep(0.3)
        assert set(fleet.loaded()) == {"a", "kept"}
    wait_for(lambda: set(fleet.loaded()) == {"kept"})
    assert [ship.key for ship in yard.made if ship.is_closed] == ["a"]


def test_only_so_many_wait() -> None:
    yard = Yard()
    fleet = Fleet(yard.load, most_waiting=2)
    yard.go.clear()
    threads = in_threads(2, lambda: fleet.take("a"))
    wait_for(lambda: fleet._n_waiting == 2)
    for key in ("a", "b"):
        with pytest.raises(QueueFull):
            fleet.take(key)
    yard.go.set()
    for thread in threads:
        thread.join()
    assert fleet.take("b").key == "b"


def test_closing_ends_everything() -> None:
    yard = Yard()
    fleet = Fleet(yard.load)
    fleet.take("a")
    yard.go.clear()
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            fleet.take("b")
        except EngineClosed as error:
            errors.append(error)

    (thread,) = in_threads(1, ask)
    wait_for(lambda: fleet.is_loading)
    fleet.close()
    yard.go.set()
    thread.join()
    assert len(errors) == 1
    assert all(ship.is_closed for ship in yard.made)
    with pytest.raises(EngineClosed):
        fleet.take("c")
