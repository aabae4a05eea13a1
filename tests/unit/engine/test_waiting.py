import random
import threading

from hypothesis import given
from hypothesis import strategies as st

from llamalite.engine.waiting import WaitingQueue


class Item:
    """Equal to all others of its kind: only the very object counts."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Item)

    __hash__ = None  # type: ignore[assignment]


def test_higher_priorities_go_first_and_equal_ones_in_order_of_arrival():
    queue = WaitingQueue()
    for name, priority in [("a", 0), ("b", 5), ("c", 0), ("d", -1), ("e", 5)]:
        queue.push(name, priority)
    assert list(queue) == ["b", "e", "a", "c", "d"]
    assert queue.peek() == "b"
    assert [queue.pop() for _ in range(6)] == ["b", "e", "a", "c", "d", None]


def test_those_who_had_their_turn_go_before_their_equals():
    queue = WaitingQueue()
    queue.push("a")
    queue.push("b", 3)
    queue.push_front("d")
    queue.push_front("e")
    assert list(queue) == ["b", "e", "d", "a"]


def test_removes_the_very_object():
    queue = WaitingQueue()
    first, second = Item(), Item()
    queue.push(first)
    assert not queue.remove(second)
    queue.push(second)
    assert queue.remove(second)
    assert len(queue) == 1
    assert queue.pop() is first
    assert not queue.remove(first)
    assert queue.peek() is None


def test_is_iterated_as_it_was_when_asked():
    queue = WaitingQueue()
    queue.push(1)
    queue.push(2)
    seen = [(item, queue.remove(item)) for item in queue]
    assert seen == [(1, True), (2, True)]


@given(st.lists(st.tuples(st.sampled_from(["push", "front", "pop", "remove"]), st.integers(-2, 2))))
def test_does_what_a_sorted_list_does(calls):
    queue, model = WaitingQueue(), []
    for n, (call, priority) in enumerate(calls):
        if call == "push":
            queue.push(n, priority)
            model.append((-priority, n, n))
        elif call == "front":
            queue.push_front(n, priority)
            model.append((-priority, -n, n))
        elif call == "pop":
            assert queue.pop() == (model.pop(0)[2] if model else None)
        else:
            assert queue.remove(n // 2) == any(item == n // 2 for *_, item in model)
            model = [entry for entry in model if entry[2] != n // 2]
        model.sort()
        assert list(queue) == [item for *_, item in model]
        assert len(queue) == len(model)


def test_threads_lose_nothing():
    queue, popped = WaitingQueue(), []

    def work(base: int) -> None:
        for n in range(200):
            queue.push(base + n, random.randrange(3))
            if (item := queue.pop()) is not None:
                popped.append(item)

    threads = [threading.Thread(target=work, args=(k * 1000,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([*popped, *queue]) == sorted(k * 1000 + n for k in range(4) for n in range(200))
