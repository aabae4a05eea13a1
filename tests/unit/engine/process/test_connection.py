"""A server and its clients, in one process: what arrives, and what it takes to be cut off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from support.fake_engine import BROKEN, FACTS, FLOOD, N_CTX, SILENT, SPOILED
from support.processes import wait_until

from llamalite.config import SamplingConfig
from llamalite.engine.process import connection as connection_module
from llamalite.engine.process import server as server_module
from llamalite.engine.process import source as source_module
from llamalite.engine.process import wire
from llamalite.engine.process.auth import introduce
from llamalite.engine.process.client import EngineClient
from llamalite.engine.process.sockets import dial
from llamalite.engine.process.wire import (
    Accepted,
    AskStats,
    FromEngine,
    Messages,
    Refused,
    Step,
    Submit,
    frame,
)
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.engine.result import Delta
from llamalite.errors import (
    ContextLengthExceeded,
    EngineClosed,
    EngineError,
    InvalidParameter,
    QueueFull,
)

Serve = Callable[..., Any]


class Collected:
    """A Sink that keeps what comes, step by step."""

    def __init__(self) -> None:
        self.steps: list[list[tuple[int, Any]]] = []
        self._step: list[tuple[int, Any]] = []
        self.is_over = threading.Event()

    def put(self, request_id: int, item: Any) -> None:
        self._step.append((request_id, item))

    def flush(self) -> None:
        step, self._step = self._step, []
        self.steps.append(step)
        if any(getattr(item, "finish_reason", True) for _, item in step):
            self.is_over.set()


def test_answers_embeddings_stats_and_facts(serve: Serve) -> None:
    with EngineClient(serve().source) as client:
        assert client.facts == FACTS
        results = client.submit(GenerationRequest([10], n=3, logprobs=1)).results()
        assert [result.tokens for result in results] == [[11, 12, 13, 14, 15]] * 3
        assert results[2].logprobs[0].top == ((11, -0.5), (1, -2.0))
        rows = client.embed(EmbeddingRequest([[4, 5], [6]])).result(5)
        np.testing.assert_array_equal(rows, [[4, 4, 4], [6, 6, 6]])
        assert client.stats().finished == {"stop": 3}


def test_errors_come_at_once_and_as_what_they_are(serve: Serve) -> None:
    with EngineClient(serve().source) as client:
        with pytest.raises(ContextLengthExceeded) as caught:
            client.submit(GenerationRequest([1] * 200))
        assert (caught.value.n_prompt, caught.value.n_ctx) == (200, N_CTX)
        with pytest.raises(EngineError, match="ZeroDivisionError: not a word of ours"):
            client.submit(GenerationRequest([BROKEN]))
        with pytest.raises(InvalidParameter, match="another one"):
            client.submit(GenerationRequest([1], processors=(print,)))
        failing = client.submit(GenerationRequest([SPOILED]))
        assert next(failing).tokens == (SPOILED + 1,)
        with pytest.raises(EngineError, match="spoiled"):
            next(failing)
        assert client.submit(GenerationRequest([1])).result().finish_reason == "length"


def test_several_clients_get_their_own(serve: Serve) -> None:
    served = serve()
    clients = [EngineClient(served.source) for _ in range(4)]
    asked = [(c, n, c.submit(GenerationRequest([100 * n]))) for n in range(5) for c in clients]
    for _, n, generation in asked:
        assert generation.result().tokens == [100 * n + i for i in range(1, 6)]
    for client in clients:
        client.close()
    assert not served.engine._running


def test_a_step_is_one_message_for_all_requests_of_a_connection(serve: Serve) -> None:
    served = serve()
    with dial(served.address, 5) as connection:
        introduce(connection, served.secret)
        messages = Messages(connection.makefile("rb"), FromEngine)
        messages.read()
        served.engine._lock.acquire()  # so that all begin in the same step
        fields = {"sampling": {"max_tokens": 7}}
        for number in range(16):
            connection.sendall(frame(Submit(number, b"\1\0\0\0", fields)))
        threading.Timer(0.1, served.engine._lock.release).start()
        steps = []
        while not steps or steps[-1].deltas[0][1].finish_reason is None:
            message = messages.read()
            if isinstance(message, Step):
                steps.append(message)
            else:
                assert isinstance(message, Accepted)
        # The first request may be a step ahead of those that waited for the lock behind it.
        assert len(steps) <= 9
        assert max(len(step.deltas) for step in steps) == 16


def test_sinks_are_flushed_once_for_each_step(serve: Serve) -> None:
    sink = Collected()
    with EngineClient(serve().source) as client:
        generation = client.submit(GenerationRequest([20], n=2), sink)
        assert sink.is_over.wait(5)
    assert [[(number, item.tokens) for number, item in step] for step in sink.steps] == [
        [(generation.id, (20 + i,))] * 2 for i in range(1, 6)
    ]


def test_a_sink_that_fails_ends_nobody_elses_connection(serve: Serve) -> None:
    class Failing(Collected):
        def put(self, request_id: int, item: Any) -> None:
            raise RuntimeError("no")

    with EngineClient(serve().source) as client:
        client.submit(GenerationRequest([1]), Failing())
        assert client.submit(GenerationRequest([2])).result().tokens[0] == 3
        assert client.drain(5)


def test_what_is_too_long_to_be_sent_costs_only_its_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    with EngineClient(served.source) as client:
        client.start()
        monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 4000)
        going_on = client.submit(GenerationRequest([SILENT]))
        with pytest.raises(InvalidParameter, match="too long"):
            client.embed(EmbeddingRequest([[n] for n in range(500)])).result(5)
        with pytest.raises(InvalidParameter, match="too long"):
            client.submit(GenerationRequest([FLOOD])).result()
        wait_until(lambda: len(served.engine._running) == 1)  # it was cancelled
        # Together the answers of a step are too long, but not each.
        results = client.submit(GenerationRequest([10], n=128, logprobs=1)).results()
        assert [result.tokens for result in results] == [[11, 12, 13, 14, 15]] * 128
        going_on.cancel()
        assert going_on.result().finish_reason == "cancelled"


def test_a_sink_may_ask_for_more(serve: Serve) -> None:
    class Asking(Collected):
        def put(self, request_id: int, item: Any) -> None:
            super().put(request_id, item)
            if len(self.steps) == 1:
                refused.append(client.submit(GenerationRequest([1] * 200)))
                embedded.append(client.embed(EmbeddingRequest([[7]])))
                stats.append(client.stats())

        def flush(self) -> None:
            super().flush()
            if len(self.steps) == 3:
                answered.append(client.submit(GenerationRequest([30])))

    refused: list[Any] = []
    embedded: list[Any] = []
    answered: list[Any] = []
    stats: list[Any] = []
    sink = Asking()
    with EngineClient(serve().source) as client:
        started = time.monotonic()
        client.submit(GenerationRequest([20]), sink)
        assert sink.is_over.wait(5)
        assert time.monotonic() - started < 2
        assert answered[0].result().tokens[0] == 31
        np.testing.assert_array_equal(embedded[0].result(5), [[7, 7, 7]])
        with pytest.raises(ContextLengthExceeded):
            refused[0].next(5)
        assert stats[0].n_waiting >= 1
        assert client.drain(5)


def test_cancel_ends_what_runs(serve: Serve) -> None:
    served = serve()
    with EngineClient(served.source) as client:
        generation = client.submit(GenerationRequest([SILENT], n=2))
        with pytest.raises(TimeoutError):
            generation.next(0.05)
        generation.cancel()
        assert [r.finish_reason for r in generation.results()] == ["cancelled"] * 2
        wait_until(lambda: not served.engine._running)
        client.cancel(generation.id)  # over already
        client.cancel(12345)


def test_who_leaves_has_his_requests_cancelled(serve: Serve) -> None:
    served = serve()
    client = EngineClient(served.source)
    generation = client.submit(GenerationRequest([SILENT]))
    other = EngineClient(served.source)
    going_on = other.submit(GenerationRequest([SILENT]))
    client.close()
    with pytest.raises(EngineClosed):
        generation.next(5)
    with pytest.raises(EngineClosed):
        client.submit(GenerationRequest([1]))
    wait_until(lambda: len(served.engine._running) == 1)
    other.cancel(going_on.id)
    assert going_on.result().finish_reason == "cancelled"
    other.close()


def test_compiling_holds_up_nobody_else(serve: Serve) -> None:
    with EngineClient(serve().source) as client:
        slow = GenerationRequest([1], SamplingConfig(grammar='root ::= "x"'))  # takes 0.3 s
        thread = threading.Thread(target=client.submit, args=[slow])
        thread.start()
        time.sleep(0.05)
        started = time.monotonic()
        client.submit(GenerationRequest([1])).result()
        assert time.monotonic() - started < 0.2
        thread.join()


def test_a_client_that_does_not_read_is_cut_off_and_told(serve: Serve) -> None:
    served = serve(most_bytes=1 << 20)
    with EngineClient(served.source) as healthy, dial(served.address, 5) as slow:
        introduce(slow, served.secret)
        slow.sendall(frame(Submit(1, np.array([FLOOD], "<i4").tobytes(), {})))
        wait_until(lambda: bool(served.engine.cancelled))
        wait_until(lambda: not served.engine._running)
        assert healthy.submit(GenerationRequest([1])).result().finish_reason == "length"
        messages = Messages(slow.makefile("rb"), FromEngine)
        *_, last = iter(messages.read, None)
        assert "didn't read" in last.reason


def test_a_client_that_was_cut_off_hears_why_and_connects_anew(serve: Serve) -> None:
    served = serve(most_bytes=1)

    class Slow(Collected):
        def put(self, request_id: int, item: Any) -> None:
            super().put(request_id, item)
            if isinstance(item, Delta):
                time.sleep(0.2)

    sink = Slow()
    with EngineClient(served.source) as client:
        client.submit(GenerationRequest([FLOOD]), sink)
        assert sink.is_over.wait(10)
        assert "didn't read" in str(sink.steps[-1][-1][1])
        assert client.submit(GenerationRequest([1])).result().finish_reason == "length"


def test_a_stranger_gets_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "_MOST_REFUSALS", 5)
    served = serve()
    source = served.source
    source.said = msgspec.structs.replace(source.said, secret=b"x" * 32)
    client = EngineClient(source)
    errors = []
    for _ in range(2):
        with pytest.raises(EngineError, match="doesn't take this program in") as caught:
            client.start()
        errors.append(caught.value)
    assert errors[0] is not errors[1]  # raising one adds to its traceback
    client.close()


def test_an_engine_of_another_version_is_an_error(serve: Serve) -> None:
    served = serve()
    served.server.facts = {"odd": 1}
    with (
        EngineClient(served.source) as client,
        pytest.raises(EngineError, match="another version"),
    ):
        client.start()


def test_who_talks_nonsense_has_his_requests_cancelled(serve: Serve) -> None:
    served = serve()
    with dial(served.address, 5) as odd:
        introduce(odd, served.secret)
        odd.sendall(frame(Submit(1, np.array([SILENT], "<i4").tobytes(), {})))
        wait_until(lambda: len(served.engine._running) == 1)
        odd.sendall(frame(Submit(2, b"\1\0\0\0", {"sampling": 7})))
        messages = Messages(odd.makefile("rb"), FromEngine)
        *_, last = (messages.read() for _ in range(3))
        assert isinstance(last, Refused)
        served.engine.stats = lambda: 1 / 0
        odd.sendall(frame(AskStats(1)))
        wait_until(lambda: not served.engine._running)
    wait_until(lambda: not served.server._connections)


def test_no_thread_for_a_connection_ends_no_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve()
    start = threading.Thread.start

    def failing(thread: threading.Thread) -> None:
        if thread.name == "llamalite-connection":
            monkeypatch.setattr(threading.Thread, "start", start)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", failing)
    with EngineClient(served.source) as client:
        assert client.submit(GenerationRequest([1])).result().finish_reason == "length"
    wait_until(lambda: not served.server._n_guests)


def test_what_is_dropped_amid_a_submission_may_be_cancelled(serve: Serve) -> None:
    class Dropping(list[int]):
        """As garbage collected while the connection's lock is held."""

        def send(self, content: bytes) -> bool:
            if not self:
                self.append(1)
                client.cancel(going_on.id)
            return outgoing.send(content)

        def close(self) -> None:
            outgoing.close()

    with EngineClient(serve().source) as client:
        going_on = client.submit(GenerationRequest([SILENT]))
        link = client._link
        assert link is not None
        outgoing = link._outgoing
        assert outgoing is not None
        link._outgoing = Dropping()  # type: ignore[assignment]
        thread = threading.Thread(target=client.submit, args=[GenerationRequest([1])], daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        assert going_on.next(5).finish_reason == "cancelled"


def test_an_engine_that_stays_out_of_reach_is_an_error(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_UNREACHABLE_S", 0.2)
    source = serve().source
    source.said = msgspec.structs.replace(source.said, address=f"unix:{tmp_path}/none")
    with EngineClient(source) as client, pytest.raises(EngineError, match="can't be reached"):
        client.start()


def test_connections_and_requests_are_bounded(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(connection_module, "_MOST_REQUESTS", 3)
    served = serve()
    with EngineClient(served.source) as client:
        running = [client.submit(GenerationRequest([SILENT])) for _ in range(3)]
        with pytest.raises(QueueFull):
            client.submit(GenerationRequest([SILENT]))
        with dial(served.address, 5), dial(served.address, 5) as third:
            assert third.recv(1) == b""
        for generation in running:
            generation.cancel()
        for generation in running:
            generation.result()


def test_nothing_is_left_over(serve: Serve) -> None:
    served = serve()
    before = threading.active_count()
    for _ in range(3):
        with EngineClient(served.source) as client:
            client.submit(GenerationRequest([1])).result()
    wait_until(lambda: threading.active_count() <= before)
    assert not served.server._connections
