"""opencode's LLMServer, which says that llamalite has no server yet.

May import `errors`.
"""

from __future__ import annotations

from typing import Any, NoReturn

from llamalite.errors import EngineError
from llamalite.opencode.chat import ChatCompletionRequest, ChatCompletionResponse
from llamalite.opencode.settings import LLMConfig, ServerConfig


class LLMServer:
    """A server of OpenAI's API; nothing listens in this version of llamalite.

    Args:
        config: where it would listen; None = the defaults.
        llm_config: models and how they would be run; None = the defaults.
    """

    def __init__(
        self, config: ServerConfig | None = None, llm_config: LLMConfig | None = None
    ) -> None:
        self.config = config or (llm_config.server if llm_config else ServerConfig())
        self.llm_config = llm_config or LLMConfig()

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return False

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            EngineError: always; the server comes with a later version.
        """
        _refuse(f"no server can listen on {self.config.host}:{self.config.port}")

    async def stop(self) -> None:
        """End what `start` began; there is nothing to end."""

    async def handle_chat_completions(
        self, request: ChatCompletionRequest
    ) -> ChatCompletionResponse:
        """Answer a conversation.

        Raises:
            EngineError: always, as in `start`.
        """
        _refuse(f"the request for {request.model} can't be answered")

    async def handle_embeddings(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the embeddings of texts.

        Raises:
            EngineError: always, as in `start`.
        """
        _refuse("the request for embeddings can't be answered")

    async def handle_models(self) -> dict[str, Any]:
        """Return the models on offer.

        Raises:
            EngineError: always, as in `start`.
        """
        _refuse("the request for models can't be answered")


def _refuse(what: str) -> NoReturn:
    raise EngineError(
        f"{what}: the server comes with a later version of llamalite; until then use "
        "llamalite.LLM, or 'llamalite run'"
    )


_default: LLMServer | None = None


def get_llm_server(
    config: ServerConfig | None = None, llm_config: LLMConfig | None = None
) -> LLMServer:
    """Return the program's server, made on first use and anew whenever a configuration is given."""
    global _default
    if _default is None or config is not None or llm_config is not None:
        _default = LLMServer(config, llm_config)
    return _default
