"""From texts and conversations to the tokens of a prompt, as the model's template and settings say.

Owns what stands before every conversation, and that there is exactly one BOS. Doesn't know engines
or requests. Imports `core`, `config` and `text`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamalite.config.layers import Effective
from llamalite.core.vocab import Vocab
from llamalite.engine.literal import Literal
from llamalite.text.bos import needs_bos
from llamalite.text.chat_template import ChatTemplate
from llamalite.text.templates import ChosenTemplate

Message = Mapping[str, Any]


class Prompting:
    """Makes prompts for one model; any thread.

    Args:
        vocab: the model's.
        template: the chat template to use.
        defaults: what is configured for the model.
        say: takes a line worth knowing about the template, when it is first used.

    Attributes:
        system_prompt: system message of conversations that begin without one, or None.
    """

    def __init__(
        self,
        vocab: Vocab,
        template: ChosenTemplate,
        defaults: Effective,
        say: Callable[[str], None],
    ) -> None:
        self.vocab, self._chosen, self._say = vocab, template, say
        self.system_prompt = defaults.system_prompt
        self._opening = [{"role": role, "content": text} for role, text in defaults.messages]
        self._template: ChatTemplate | None = None
        self._literal = Literal(vocab)

    @property
    def source(self) -> str:
        """Jinja text of the template that conversations without tools use."""
        source = self._chosen.source
        if isinstance(source, str):
            return source
        return source.get("default") or next(iter(source.values()), "")

    def opened(self, messages: Sequence[Message]) -> list[Message]:
        """Put before a conversation what is configured to stand there."""
        opening = list(self._opening)
        if self.system_prompt is not None and not any(
            message.get("role") == "system" for message in (*opening, *messages)
        ):
            opening.insert(0, {"role": "system", "content": self.system_prompt})
        # A system message of the conversation's own stays the first.
        own = [m for m in messages[:1] if opening and m.get("role") == "system"]
        return [*own, *opening, *messages[len(own) :]]

    def render(self, messages: Sequence[Message], **kwargs: Any) -> str:
        """Return the text the chat template makes of messages.

        Args:
            messages: dicts with "role" and "content".
            kwargs: passed to the template (tools, add_generation_prompt, …).

        Raises:
            TemplateError: the template refuses them.
        """
        if self._template is None:
            if self._chosen.notice:
                self._say(self._chosen.notice)
            self._template = ChatTemplate(
                self._chosen.source,
                bos_token=self.vocab.text_of("bos"),
                eos_token=self.vocab.text_of("eos"),
            )
        return self._template.render(messages, **kwargs)

    def of_messages(self, messages: Sequence[Message], **kwargs: Any) -> list[int]:
        """Return the tokens of messages, in which users' control tokens are text.

        Otherwise as `render`.
        """
        messages, mark = self._literal.marked(messages)
        text = self.render(messages, **kwargs)
        if mark is None:
            return self.of_text(text)
        first, *rest = text.split(mark)
        tokens = self.of_text(first)
        for part in rest:
            tokens += self.vocab.tokenize(part, add_special=False, parse_special=True)
        return tokens

    def of_text(self, text: str) -> list[int]:
        """Return the tokens of a text, with exactly one BOS if the model wants one."""
        bos = needs_bos(text, self.vocab.text_of("bos"), self.vocab.adds_bos)
        return self.vocab.tokenize(text, add_special=bos, parse_special=True)
