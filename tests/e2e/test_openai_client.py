"""The real openai client against the real server."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from pathlib import Path

import numpy as np
import openai
import pydantic
import pytest
from support.live_server import Server, serving

SKY = [{"role": "user", "content": "What colour is the sky? Answer in one word."}]


def chat(client: openai.OpenAI, messages=SKY, **given):
    given = {"model": "smollm2", "temperature": 0, "max_tokens": 16, **given}
    return client.chat.completions.create(messages=messages, **given)


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = chat(client)
    assert "blue" in answer.choices[0].message.content.lower()
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 10


def test_the_same_prompt_again_is_cached(client: openai.OpenAI) -> None:
    chat(client)
    again = chat(client)
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    fresh = chat(client, extra_body={"cache_prompt": False})
    assert fresh.usage.prompt_tokens_details.cached_tokens == 0


def test_a_stream_brings_the_same_in_pieces(client: openai.OpenAI) -> None:
    whole = chat(client, max_tokens=24)
    chunks = list(chat(client, max_tokens=24, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1


def test_several_answers(client: openai.OpenAI) -> None:
    answer = chat(client, n=3, temperature=1.5, seed=7, max_tokens=12)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    again = chat(client, n=3, temperature=1.5, seed=7, max_tokens=12)
    assert again.usage.completion_tokens == answer.usage.completion_tokens


def test_stop_strings_are_not_shown(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Count: 1, 2, 3, 4, 5, 6, 7"}]
    free = chat(client, messages, max_tokens=40).choices[0].message.content
    stop = free[5:8]
    cut = chat(client, messages, max_tokens=40, stop=[stop])
    assert cut.choices[0].message.content == free[: free.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_logprobs(client: openai.OpenAI) -> None:
    answer = chat(client, logprobs=True, top_logprobs=3, max_tokens=4)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)  # greedy
        assert len(token.top_logprobs) == 3
        assert bytes(token.bytes).decode() == token.token
        assert sum(math.exp(top.logprob) for top in token.top_logprobs) <= 1 + 1e-6


class Sky(pydantic.BaseModel):
    colour: str
    is_blue: bool


def test_structured_output_is_parsed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="smollm2", messages=SKY, response_format=Sky, temperature=0, max_tokens=64
    )
    assert isinstance(answer.choices[0].message.parsed, Sky)


def test_json_object(client: openai.OpenAI) -> None:
    answer = chat(client, response_format={"type": "json_object"}, max_tokens=64)
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_a_biased_token_is_chosen_or_never(client: openai.OpenAI) -> None:
    first = chat(client, max_tokens=1, logprobs=True).choices[0].logprobs.content[0]
    banned = chat(
        client, max_tokens=1, logprobs=True, extra_body={"logit_bias": [[first.token, False]]}
    )
    assert banned.choices[0].logprobs.content[0].token != first.token


def test_completions_with_echo_and_logprobs(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="smollm2", prompt="The sky is", max_tokens=4, temperature=0, echo=True, logprobs=2
    )
    choice = answer.choices[0]
    assert choice.text.startswith("The sky is")
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.text_offset[1] == len(choice.logprobs.tokens[0])
    streamed = client.completions.create(
        model="smollm2", prompt="The sky is", max_tokens=4, temperature=0, stream=True
    )
    assert "The sky is" + "".join(c.choices[0].text for c in streamed) == choice.text


def test_embeddings_as_numbers_and_as_base64_agree(client: openai.OpenAI) -> None:
    texts = ["a cat", "a small cat", "stock market"]
    plain = client.embeddings.create(model="smollm2", input=texts, encoding_format="float")
    rows = np.array([item.embedding for item in plain.data])
    packed = client.embeddings.create(model="smollm2", input=texts)  # the client asks for base64
    assert rows == pytest.approx(np.array([item.embedding for item in packed.data]), abs=1e-3)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1], abs=1e-4)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    raw = client.embeddings.with_raw_response.create(
        model="smollm2", input=texts[0], encoding_format="base64"
    )
    data = base64.b64decode(json.loads(raw.text)["data"][0]["embedding"])
    assert len(data) == 4 * rows.shape[1]


def test_models_are_listed_and_described(client: openai.OpenAI, server: Server) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "smollm2"
    found = client.models.retrieve("smollm2")
    assert found.id == "smollm2"
    assert found.context_length == 1024
    assert not any("/" in name and name.startswith("/") for name in names)


def test_errors_are_typed(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.NotFoundError, match="no model"):
        chat(client, model="no-such-model")
    with pytest.raises(openai.BadRequestError) as found:
        chat(client, [{"role": "user", "content": "word " * 3000}])
    assert found.value.code == "context_length_exceeded"
    assert "1024" in str(found.value)
    with pytest.raises(openai.BadRequestError) as found:
        chat(client, temperature=-1)
    assert found.value.param == "temperature"
    with pytest.raises(openai.InternalServerError) as unsupported:
        chat(client, tools=[{"type": "function", "function": {"name": "f"}}])
    assert unsupported.value.status_code == 501
    wrong = openai.OpenAI(base_url=f"{server.address}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        chat(wrong)


def test_a_schema_that_cannot_be_enforced_is_refused(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "maxLenght": 3}}}
    with pytest.raises(openai.BadRequestError, match="/properties/a"):
        chat(
            client,
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        )


def test_unknown_fields_are_named(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="smollm2", messages=SKY, max_tokens=1, extra_body={"temprature": 1}
    )
    assert raw.headers["x-llamalite-ignored"] == "temprature"


def test_who_hangs_up_frees_the_slot(client: openai.OpenAI) -> None:
    for _ in range(6):  # more than there are slots
        stream = chat(client, max_tokens=900, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
    started = time.perf_counter()
    chat(client, max_tokens=1)
    assert time.perf_counter() - started < 10


def test_many_at_once_get_their_own_answers(client: openai.OpenAI) -> None:
    alone = {n: _count_from(client, n) for n in range(8)}
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: _count_from(client, n)}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for n, text in found.items():
        assert text[:4] == alone[n][:4]


def _count_from(client: openai.OpenAI, n: int) -> str:
    prompt = f"{n}{n}{n}, {n}{n}{n}, {n}{n}{n}, {n}{n}{n},"
    answer = client.completions.create(model="smollm2", prompt=prompt, temperature=0, max_tokens=12)
    return answer.choices[0].text


def test_a_signal_lets_answers_end(smollm2: Path) -> None:
    with serving(str(smollm2), "--ctx-size=512") as server:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key="x", max_retries=0)
        stream = chat(client, model="", max_tokens=60, stream=True, extra_body={"ignore_eos": True})
        chunks = [next(iter(stream))]
        ended: list[int] = []
        thread = threading.Thread(target=lambda: ended.append(server.stop()))
        thread.start()
        chunks += list(stream)
        thread.join()
        assert ended == [0]
        assert chunks[-1].choices[0].finish_reason == "length"
        assert "Traceback" not in "".join(server.log)
