"""llama-server's own API, as its documentation says, over plain HTTP.

Source: llama.cpp tools/server/README.md (b11434).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from email.message import Message
from typing import Any

import numpy as np
import pytest
from support.live_server import Server

SKY = "The sky is"


def ask(server: Server, path: str, body: Any = None) -> tuple[int, Any, Message]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": "Bearer sesame"}
    request = urllib.request.Request(server.address + path, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            text, status = response.read().decode(), response.status
            found_headers = response.headers
    except urllib.error.HTTPError as error:
        text, status, found_headers = error.read().decode(), error.code, error.headers
    if "text/event-stream" in found_headers["Content-Type"]:
        events = [line for line in text.split("\n\n") if line.startswith("data: ")]
        return status, [json.loads(line.removeprefix("data: ")) for line in events], found_headers
    return status, json.loads(text), found_headers


def complete(server: Server, **fields: Any) -> Any:
    said = {"prompt": SKY, "temperature": 0, "n_predict": 8, **fields}
    status, answer, _ = ask(server, "/completion", said)
    assert status == 200, answer
    return answer


def test_a_completion_says_all_that_is_documented(server: Server) -> None:
    answer = complete(server)
    assert answer["content"]
    assert answer["stop"] is True
    assert answer["stop_type"] == "limit"
    assert answer["stopping_word"] == ""
    assert answer["tokens"] == []
    assert answer["tokens_predicted"] == 8
    assert answer["tokens_evaluated"] == len(tokens_of(server, SKY))
    assert answer["prompt"].endswith(SKY)
    assert answer["truncated"] is False
    assert answer["model"] == "smollm2"
    settings = answer["generation_settings"]
    assert settings["temperature"] == 0
    assert settings["n_predict"] == 8
    assert settings["n_ctx"] == 1024
    timings = answer["timings"]
    assert timings["predicted_n"] == 8
    assert timings["cache_n"] + timings["prompt_n"] == answer["tokens_evaluated"]
    assert timings["predicted_per_second"] > 1


def tokens_of(server: Server, text: str, **more: Any) -> Any:
    return ask(server, "/tokenize", {"content": text, **more})[1]["tokens"]


def test_a_streamed_completion_is_the_same(server: Server) -> None:
    whole = complete(server, return_tokens=True)
    events = complete(server, stream=True)
    assert "".join(event["content"] for event in events) == whole["content"]
    assert [token for event in events for token in event["tokens"]] == whole["tokens"]
    assert [event["stop"] for event in events] == [False] * (len(events) - 1) + [True]
    assert "timings" not in events[0]
    assert events[-1]["stop_type"] == "limit"


def test_prompts_of_every_documented_shape(server: Server) -> None:
    plain = complete(server)["content"]
    tokens = tokens_of(server, SKY)
    assert complete(server, prompt=tokens)["content"] == plain
    assert complete(server, prompt={"prompt_string": SKY})["content"] == plain
    mixed = complete(server, prompt=[*tokens[:1], SKY[3:]])
    assert mixed["content"] == plain
    several = complete(server, prompt=[SKY, tokens, {"prompt_string": SKY}, "Once upon"])
    assert [one["index"] for one in several] == [0, 1, 2, 3]
    assert [one["content"] for one in several[:3]] == [plain] * 3
    assert several[3]["content"] != plain
    for prompt in ([], "", [[]], {"prompt_string": SKY, "multimodal_data": ["aGk="]}, [999999]):
        status, answer, _ = ask(server, "/completion", {"prompt": prompt, "n_predict": 1})
        assert status == 400, answer
        assert answer["error"]["type"] == "invalid_request_error"
        assert answer["error"]["code"] == 400


def test_how_an_answer_stopped(server: Server) -> None:
    free = complete(server, n_predict=12)["content"]
    word = free[5:9]
    stopped = complete(server, n_predict=12, stop=[word])
    assert stopped["stop_type"] == "word"
    assert stopped["stopping_word"] == word
    assert stopped["content"] == free[: free.index(word)]
    ended = complete(server, grammar='root ::= "yes"', n_predict=20)
    assert ended["content"] == "yes"
    assert ended["stop_type"] == "eos"
    none = complete(server, n_predict=0)
    assert none["content"] == ""
    assert none["tokens_predicted"] == 0


def test_several_completions_of_each_prompt(server: Server) -> None:
    answers = complete(server, prompt=[SKY, "Once"], n_cmpl=2, temperature=1, seed=5)
    assert [one["index"] for one in answers] == [0, 1, 2, 3]
    assert answers[0]["prompt"] == answers[1]["prompt"] != answers[2]["prompt"]


def test_probabilities(server: Server) -> None:
    answer = complete(server, n_probs=3, n_predict=4, return_tokens=True)
    found = answer["completion_probabilities"]
    assert [one["id"] for one in found] == answer["tokens"]
    for one in found:
        assert len(one["top_logprobs"]) == 3
        assert one["logprob"] == one["top_logprobs"][0]["logprob"]
        assert bytes(one["bytes"]).decode() == one["token"]


def test_constraints_and_biases(server: Server) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}
    answer = complete(server, json_schema=schema, n_predict=60)
    assert json.loads(answer["content"])["a"] == 1
    first = complete(server, n_predict=1, return_tokens=True)["tokens"][0]
    banned = complete(server, n_predict=1, return_tokens=True, logit_bias=[[first, False]])
    assert banned["tokens"][0] != first
    text = complete(server, n_predict=1)["content"]
    assert complete(server, n_predict=1, logit_bias=[[text, -100]])["content"] != text


def test_response_fields(server: Server) -> None:
    wanted = ["content", "generation_settings/n_predict", "absent", "timings/absent"]
    assert set(complete(server, response_fields=wanted)) == {"content", "n_predict"}


SAMPLING = {
    "dynatemp_range": 0.5, "dynatemp_exponent": 2, "top_k": 3, "top_p": 0.5, "min_p": 0.2,
    "typical_p": 0.5, "repeat_penalty": 1.5, "repeat_last_n": 8, "presence_penalty": 1,
    "frequency_penalty": 1, "dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 3,
    "dry_penalty_last_n": 16, "dry_sequence_breakers": ["."], "xtc_probability": 0.5,
    "xtc_threshold": 0.2, "mirostat": 2, "mirostat_tau": 4, "mirostat_eta": 0.2, "seed": 7,
    "ignore_eos": True, "min_keep": 2, "samplers": ["top_k", "typ_p", "temperature"],
    "temperature": 0.5, "top_n_sigma": 2, "n_probs": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLING)
def test_each_sampling_field_is_honoured(server: Server, name: str) -> None:
    answer = complete(server, temperature=0.9, n_predict=2)  # the default
    changed = ask(server, "/completion", {"prompt": SKY, "n_predict": 2, name: SAMPLING[name]})[1]
    assert changed["generation_settings"][name] == SAMPLING[name]
    if name != "seed":
        assert answer["generation_settings"][name] != SAMPLING[name]


@pytest.mark.parametrize(
    "field",
    [
        {"n_indent": 4},
        {"t_max_predict_ms": 100},
        {"id_slot": 1},
        {"post_sampling_probs": True},
        {"return_progress": True},
        {"lora": [{"id": 0, "scale": 0.5}]},
        {"temperature": "hot"},
        {"top_p": 2},
        {"grammar": "root ::= ("},
        {"samplers": ["magic"]},
        {"n_predict": -7},
    ],
    ids=lambda field: next(iter(field)),
)
def test_what_cannot_be_honoured_is_refused_by_name(server: Server, field: dict[str, Any]) -> None:
    status, answer, _ = ask(server, "/completion", {"prompt": SKY, "n_predict": 1, **field})
    assert status == 400
    (name,) = field
    assert name.replace("n_predict", "max_tokens") in answer["error"]["message"]


@pytest.mark.parametrize(
    "field",
    [{"n_keep": 4}, {"n_discard": 2}, {"n_cache_reuse": 1}, {"id_slot": -1}, {"lora": []},
     {"cache_prompt": False}, {"sse_ping_interval": -1}, {"timings_per_token": True}],
    ids=lambda field: next(iter(field)),
)  # fmt: skip
def test_what_changes_no_answer_is_taken(server: Server, field: dict[str, Any]) -> None:
    said = {"prompt": SKY, "temperature": 0, "n_predict": 8, **field}
    _, answer, headers = ask(server, "/completion", said)
    assert answer["content"] == complete(server)["content"]
    assert "x-llamalite-ignored" not in headers


def test_tokens_there_and_back(server: Server) -> None:
    text = "Grüße, 世界 🙂"
    tokens = tokens_of(server, text)
    assert ask(server, "/detokenize", {"tokens": tokens})[1] == {"content": text}
    pieces = tokens_of(server, text, with_pieces=True)
    assert [piece["id"] for piece in pieces] == tokens
    raw = b"".join(
        piece["piece"].encode() if isinstance(piece["piece"], str) else bytes(piece["piece"])
        for piece in pieces
    )
    assert raw.decode() == text
    special = "<|im_start|>"
    assert len(tokens_of(server, special)) == 1
    assert len(tokens_of(server, special, parse_special=False)) > 1


def test_the_template_is_applied(server: Server) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    prompt = ask(server, "/apply-template", {"messages": messages})[1]["prompt"]
    assert prompt.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("path", ["/embedding", "/embeddings"])
def test_embeddings_in_llama_servers_shape(server: Server, path: str) -> None:
    _, rows, _ = ask(server, path, {"content": ["a cat", "a dog"]})
    assert [row["index"] for row in rows] == [0, 1]
    (vector,) = rows[0]["embedding"]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    for norm, size in ((0, 32760), (1, 1), (3, 1)):
        (scaled,) = ask(server, path, {"content": "a cat", "embd_normalize": norm})[1][0][
            "embedding"
        ]
        order = np.inf if norm == 0 else norm
        assert np.linalg.norm(scaled, order) == pytest.approx(size, rel=1e-4)
    assert ask(server, path, {"content": "a cat", "embd_normalize": -1})[0] == 400


def test_properties_and_slots(server: Server) -> None:
    complete(server, n_predict=1)
    _, props, _ = ask(server, "/props")
    assert props["total_slots"] == 4
    assert props["default_generation_settings"]["n_ctx"] == 1024
    assert props["default_generation_settings"]["params"]["top_k"] == 40
    assert "im_start" in props["chat_template"]
    assert props["modalities"] == {"vision": False, "audio": False}
    assert props["is_sleeping"] is False
    assert "/" not in props["model_path"]
    _, slots, _ = ask(server, "/slots?fail_on_no_slot=1")
    assert [slot["id"] for slot in slots] == [0, 1, 2, 3]
    assert not any(slot["is_processing"] for slot in slots)
    assert ask(server, "/slots/0?action=save", {"filename": "x"})[0] == 501
    assert ask(server, "/slots/0?action=erase", {})[0] == 400


def test_errors_have_llama_servers_shape(server: Server) -> None:
    status, answer, _ = ask(server, "/completion", {"prompt": "word " * 3000})
    assert status == 400
    error = answer["error"]
    assert error["type"] == "exceed_context_size_error"
    assert error["n_ctx"] == 1024
    assert error["n_prompt_tokens"] >= 3000
    status, answer, _ = ask(server, "/completion", {"prompt": "a", "model": "absent"})
    assert (status, answer["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/infill", "/lora-adapters"])
def test_what_comes_later_is_a_501(server: Server, path: str) -> None:
    status, answer, _ = ask(server, path, {})
    assert (status, answer["error"]["type"]) == (501, "not_supported_error")


def test_metrics_have_llama_servers_names(server: Server) -> None:
    complete(server)
    request = urllib.request.Request(f"{server.address}/metrics", headers={"X-Api-Key": "sesame"})
    with urllib.request.urlopen(request) as response:
        lines = response.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    for name in (
        "prompt_tokens_total", "prompt_seconds_total", "prompt_tokens_seconds",
        "tokens_predicted_total", "tokens_predicted_seconds_total", "predicted_tokens_seconds",
        "requests_processing", "requests_deferred", "n_decode_total", "n_busy_slots_per_decode",
    ):  # fmt: skip
        assert float(values[f"llamacpp:{name}"]) >= 0
    assert float(values["llamacpp:tokens_predicted_total"]) > 0
    assert float(values['llamalite_completion_tokens_total{model="smollm2"}']) > 0


def test_health_needs_no_key(server: Server) -> None:
    for path in ("/health", "/v1/health"):
        with urllib.request.urlopen(server.address + path) as response:
            assert json.load(response) == {"status": "ok"}
