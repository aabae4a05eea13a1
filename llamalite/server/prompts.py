"""Prompts as requests write them: text, tokens, both mixed, or a list of such.

Owns what a list means. Imports its siblings.
"""

from __future__ import annotations

from typing import Any

from llamalite.server.problems import refuse
from llamalite.server.served import ServedModel

PromptField = str | list[str | int | list[str | int] | dict[str, Any]] | dict[str, Any]
"""What a schema declares; more is said by `prompts_of`, since one list may be all of these."""


def prompts_of(given: PromptField, served: ServedModel, param: str, most: int) -> list[list[int]]:
    """Return the tokens of each prompt.

    Args:
        given: text; or a list that is one prompt if a token id stands in it, else several.
        served: whose vocabulary it is.
        param: the field's name.
        most: prompts there may be.

    Raises:
        HTTPProblem: there is none, there are too many, or one is empty.
        InvalidParameter: a token isn't one of the model's.
    """
    items: list[Any] = [given] if _is_one(given) else list(given)
    if not items:
        raise refuse(400, f"{param} is empty", param=param)
    if len(items) > most:
        raise refuse(400, f"{param} has {len(items)} texts, more than {most}", param=param)
    prompts = [_tokens(item, served) for item in items]
    if not all(prompts):
        raise refuse(400, f"{param} holds an empty text", param=param)
    return prompts


def _is_one(given: PromptField) -> bool:
    return not isinstance(given, list) or any(isinstance(item, int) for item in given)


def _tokens(item: Any, served: ServedModel) -> list[int]:
    if isinstance(item, dict):  # llama-server's way
        if item.get("multimodal_data") or not isinstance(item.get("prompt_string"), str):
            raise refuse(400, "an object needs prompt_string, and models here read text alone",
                         param="prompt")  # fmt: skip
        item = item["prompt_string"]
    if isinstance(item, str):
        return served.prompting.of_text(item)
    tokens: list[int] = []
    for part in item if isinstance(item, list) else [item]:
        if isinstance(part, int):
            tokens.append(part)
        else:
            add_special = not tokens
            tokens += served.vocab.tokenize(part, add_special=add_special, parse_special=True)
    return tokens
