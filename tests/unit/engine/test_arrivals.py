import pytest

from llamalite.engine.arrivals import Arrivals
from llamalite.errors import EngineClosed, InvalidParameter, QueueFull


def test_places_are_taken_first_and_given_back() -> None:
    arrivals: Arrivals[str] = Arrivals(3)
    with arrivals.place_for("answers", 2):
        full = pytest.raises(QueueFull, match="2 answers and embeddings")
        with full, arrivals.place_for("embeddings", 2):
            pytest.fail("there is no place")
        arrivals.put(["a", "b"])
    assert arrivals.n_live == arrivals.count("answers") == 2
    with pytest.raises(ValueError, match="no"), arrivals.place_for("embeddings", 1):
        raise ValueError("no")
    assert (arrivals.n_live, arrivals.count("embeddings")) == (2, 0)
    arrivals.ended("answers", 2)
    assert arrivals.n_live == 0


def test_what_never_finds_a_place_is_the_callers_mistake() -> None:
    arrivals: Arrivals[str] = Arrivals(3)
    wrong = pytest.raises(InvalidParameter, match="4 answers")
    with wrong as raised, arrivals.place_for("answers", 4):
        pass
    assert raised.value.param == "n"


def test_a_door_closed_meanwhile_gives_the_place_back() -> None:
    arrivals: Arrivals[str] = Arrivals(3)

    def submit() -> None:
        with arrivals.place_for("answers", 1):
            arrivals.close("it is over")
            arrivals.put(["a"])

    with pytest.raises(EngineClosed, match="over"):
        submit()
    assert arrivals.n_live == 0
    assert arrivals.first() is None
    with pytest.raises(EngineClosed), arrivals.place_for("answers", 1):
        pass


def test_what_arrived_stays_until_it_is_dropped() -> None:
    arrivals: Arrivals[str] = Arrivals(3)
    arrivals.put(["a", "b"])
    arrivals.cancel(7)
    assert [arrivals.first(), arrivals.first()] == ["a", "a"]
    arrivals.drop()
    assert arrivals.first() == "b"
    arrivals.drop()
    assert arrivals.first() is None
    done = arrivals.cancelled()
    arrivals.cancel(8)
    arrivals.forget(done)
    assert arrivals.cancelled() == {8}
