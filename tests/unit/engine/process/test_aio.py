"""Engines for asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.fake_engine import FACTS, SILENT, SPOILED, FakeEngine

from llamalite.config import SamplingConfig
from llamalite.engine.process.aio import AsyncEngine
from llamalite.engine.process.client import EngineClient
from llamalite.engine.request import EmbeddingRequest, GenerationRequest
from llamalite.errors import ContextLengthExceeded, EngineError

Serve = Callable[..., Any]


def test_streams_beside_one_another(serve: Serve) -> None:
    async def one(engine: AsyncEngine, start: int) -> list[int]:
        tokens: list[int] = []
        async with await engine.submit(GenerationRequest([start])) as generation:
            async for delta in generation:
                tokens += delta.tokens
        assert generation.so_far()[0].tokens == tokens
        return tokens

    async def main() -> None:
        engine = AsyncEngine(EngineClient(serve().source))
        assert await engine.facts() == FACTS
        found = await asyncio.gather(*(one(engine, 10 * n) for n in range(8)))
        assert found == [[10 * n + i for i in range(1, 6)] for n in range(8)]
        results = await (await engine.submit(GenerationRequest([5], n=2))).results()
        assert [result.text for result in results] == ["6 7 8 9 10 "] * 2
        rows = await engine.embed(EmbeddingRequest([[7]]))
        np.testing.assert_array_equal(rows, [[7, 7, 7]])
        assert (await engine.stats()).finished == {"stop": 3}
        assert await engine.drain(1) is True
        await engine.close()

    asyncio.run(main())


def test_errors_come_where_they_belong(serve: Serve) -> None:
    async def main() -> None:
        engine = AsyncEngine(EngineClient(serve().source))
        with pytest.raises(ContextLengthExceeded):
            await engine.submit(GenerationRequest([1] * 200))
        generation = await engine.submit(GenerationRequest([SPOILED]))
        assert (await anext(generation)).tokens == (SPOILED + 1,)
        with pytest.raises(EngineError, match="spoiled"):
            await anext(generation)
        with pytest.raises(StopAsyncIteration):
            await anext(generation)
        await engine.close()

    asyncio.run(main())


def test_leaving_cancels(serve: Serve) -> None:
    served = serve()

    async def main() -> None:
        engine = AsyncEngine(EngineClient(served.source))
        async with await engine.submit(GenerationRequest([SILENT])):
            pass
        slow = SamplingConfig(grammar='root ::= "x"')  # takes 0.3 s until it is taken
        task = asyncio.create_task(engine.submit(GenerationRequest([SILENT], slow)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while len(served.engine.cancelled) < 2 or served.engine._running:
            await asyncio.sleep(0.01)
        await engine.close()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_leaving_cancels_embeddings(serve: Serve) -> None:
    served = serve()

    async def main() -> None:
        engine = AsyncEngine(EngineClient(served.source))
        served.engine._lock.acquire()  # so that it isn't taken yet
        asking = asyncio.create_task(engine.embed(EmbeddingRequest([[SILENT]])))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        served.engine._lock.release()
        waiting = asyncio.create_task(engine.embed(EmbeddingRequest([[SILENT]])))
        while len(served.engine._embedding) + len(served.engine.cancelled) < 2:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while len(served.engine.cancelled) < 2 or served.engine._embedding:
            await asyncio.sleep(0.01)
        assert await engine.drain(5)
        await engine.close()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_the_loop_goes_on_while_an_answer_is_awaited(serve: Serve) -> None:
    async def main() -> None:
        engine = AsyncEngine(EngineClient(serve().source))
        generation = await engine.submit(GenerationRequest([SILENT]))
        waiting = asyncio.create_task(generation.result())
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert not waiting.done()
        generation.cancel()
        assert (await waiting).finish_reason == "cancelled"
        await engine.close()

    asyncio.run(asyncio.wait_for(main(), 10))


def test_an_engine_of_this_process_serves_as_well() -> None:
    engine, stop = FakeEngine(), threading.Event()
    thread = threading.Thread(target=engine.run, args=[stop])
    thread.start()

    async def main() -> None:
        result = await (await AsyncEngine(engine).submit(GenerationRequest([1]))).result()  # type: ignore[arg-type]
        assert result.tokens == [2, 3, 4, 5, 6]

    asyncio.run(asyncio.wait_for(main(), 10))
    stop.set()
    thread.join()


def test_what_comes_after_the_loop_has_ended_is_dropped(serve: Serve) -> None:
    client = EngineClient(serve().source)

    async def main() -> None:
        await AsyncEngine(client).submit(GenerationRequest([1], SamplingConfig(max_tokens=50)))

    asyncio.run(main())
    assert client.submit(GenerationRequest([1])).result().finish_reason == "length"
    client.close()
