"""opencode's LLMServer over the real model."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest

from llamalite.errors import EngineClosed, RequestError
from llamalite.opencode import (
    ChatCompletionRequest,
    ChatMessage,
    LLMConfig,
    LLMServer,
    ServerConfig,
)


def test_it_starts_answers_and_stops(smollm2: Path) -> None:
    config = LLMConfig(default_model=str(smollm2), context_size=512, temperature=0, max_tokens=8)

    async def use() -> None:
        server = LLMServer(ServerConfig(port=0), config)
        await server.start()
        assert server.is_running
        request = ChatCompletionRequest("", [ChatMessage("user", "What colour is the sky?")])
        answer = await server.handle_chat_completions(request)
        assert answer.usage["completion_tokens"] == 8
        client = openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="x", max_retries=0)
        seen = await client.chat.completions.create(
            model="", messages=[{"role": "user", "content": "What colour is the sky?"}]
        )
        assert seen.usage.completion_tokens == 8  # what LLMConfig says holds for all requests
        embedded = await server.handle_embeddings({"input": "a"})
        assert len(embedded["data"]) == 1
        with pytest.raises(RequestError, match="input"):
            await server.handle_embeddings({})
        await server.stop()
        assert not server.is_running
        with pytest.raises(EngineClosed):
            await server.handle_models()

    asyncio.run(use())
