"""opencode's LLMServer: llamalite's server in threads of this program.

May import `server`, `config`, `engine.request` and `errors`.
"""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from llamalite.errors import EngineClosed, EngineError, RequestError
from llamalite.opencode.chat import ChatCompletionRequest, ChatCompletionResponse
from llamalite.opencode.settings import LLMConfig, ServerConfig

if TYPE_CHECKING:
    from llamalite.server.live import LiveServer


class LLMServer:
    """A server of OpenAI's API.

    Args:
        config: where it listens; None = the defaults.
        llm_config: models and how they are run; None = the defaults. Its default_model, if there
            is one, is loaded at the start.
    """

    def __init__(
        self, config: ServerConfig | None = None, llm_config: LLMConfig | None = None
    ) -> None:
        self.config = config or (llm_config.server if llm_config else ServerConfig())
        self.llm_config = llm_config or LLMConfig()
        self._live: LiveServer | None = None

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return self._live is not None and self._live.is_running

    @property
    def address(self) -> str:
        """Where it listens, as "http://127.0.0.1:8080".

        Raises:
            EngineClosed: it doesn't.
        """
        if self._live is None:
            raise EngineClosed("the server isn't running: await start() first")
        return self._live.address

    async def start(self) -> None:
        """Begin to listen, and load the default model; does nothing while it runs.

        Raises:
            InvalidParameter: the address can't be listened on.
            LlamaliteError: the default model can't be loaded.
        """
        if not self.is_running:
            self._live = await asyncio.to_thread(self._started)

    def _started(self) -> LiveServer:
        from llamalite.server.app import create_app
        from llamalite.server.live import LiveServer
        from llamalite.server.site import LOOPBACK, SiteConfig

        where, config = self.config.to_llamalite(), self.llm_config.to_llamalite()
        named = self.llm_config.default_model
        site = SiteConfig(
            models=(named,) if named else (),
            cors_origins=where.cors_origins,
            allowed_hosts=LOOPBACK if where.host in LOOPBACK else (),
        )
        app = create_app(site, llm_config=config)
        live = LiveServer(app, where)
        try:
            app.site.preload()
        except BaseException:
            live.stop()
            raise
        return live

    async def stop(self) -> None:
        """Let answers end, stop listening and end the engines."""
        live, self._live = self._live, None
        if live is not None:
            await asyncio.to_thread(live.stop)

    async def handle_chat_completions(
        self, request: ChatCompletionRequest
    ) -> ChatCompletionResponse:
        """Answer a conversation, whole even if the request says `stream`.

        Raises:
            RequestError: it can't be answered as asked.
            EngineError: the server isn't running, or failed.
        """
        said = {**request.to_dict(), "stream": False}
        return ChatCompletionResponse.from_dict(await self._ask("/v1/chat/completions", said))

    async def handle_embeddings(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the embeddings of texts, as OpenAI's API does; raises as for conversations."""
        return await self._ask("/v1/embeddings", request)

    async def handle_models(self) -> dict[str, Any]:
        """Return the models on offer, as OpenAI's API does; raises as for conversations."""
        return await self._ask("/v1/models", None)

    async def _ask(self, path: str, said: dict[str, Any] | None) -> dict[str, Any]:
        return await asyncio.to_thread(_answer, self.address + path, said)


def _answer(address: str, said: dict[str, Any] | None) -> dict[str, Any]:
    data = None if said is None else json.dumps(said).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request) as response:
            found: dict[str, Any] = json.load(response)
            return found
    except urllib.error.HTTPError as error:
        problem = json.load(error)["error"]
        if error.code < 500:
            raise RequestError(problem["message"], param=problem["param"]) from None
        raise EngineError(problem["message"]) from None
    except OSError as error:
        raise EngineClosed(f"the server doesn't answer: {error}") from None


_default: LLMServer | None = None


def get_llm_server(
    config: ServerConfig | None = None, llm_config: LLMConfig | None = None
) -> LLMServer:
    """Return the program's server, made on first use and anew whenever a configuration is given."""
    global _default
    if _default is None or config is not None or llm_config is not None:
        _default = LLMServer(config, llm_config)
    return _default
