"""opencode's names: fields, defaults and signatures as programs know them, and that they work."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from support.gguf_models import write_llama
from support.loopback_hub import LoopbackHub

from llamalite import config, opencode
from llamalite.errors import EngineError, InvalidParameter, NotGGUF
from llamalite.opencode import (
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatMessage,
    ChatTemplateType,
    GGUFMetadata,
    GPUMode,
    LLMConfig,
    LLMServer,
    ModelConfig,
    ModelInfo,
    ModelManager,
    ModelSource,
    ModelStatus,
    QuantizationType,
    Role,
    SamplingConfig,
    ServerConfig,
    get_llm_server,
    get_model_manager,
)
from llamalite.text.templates import choose_template

ROOT = Path(__file__).parents[2]
REPO = "owner/TinyLlama-1B-GGUF"

SEVENTEEN = """
LLMConfig ModelConfig SamplingConfig ServerConfig GGUFMetadata ChatTemplateType GPUMode ModelManager
ModelInfo ModelSource ModelStatus get_model_manager LLMServer get_llm_server ChatCompletionRequest
ChatCompletionResponse ChatMessage
"""
METADATA = """
architecture model_type quantization_version tokenizer tokenizer_probs vocab_size context_size
embedding_size attention_head_count attention_head_count_kv attention_layer_norm_rms_epsilon
feed_forward_dim file_size quantization_type
"""

FIELDS: dict[type, dict[str, Any]] = {
    SamplingConfig: {
        "temperature": 0.7, "top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1, "seed": None,
        "max_tokens": 2048, "stop_sequences": [],
    },
    ServerConfig: {
        "host": "127.0.0.1", "port": 8080, "cors_origins": ["*"], "max_connections": 10,
        "timeout": 300,
    },
    ModelConfig: {
        "name": "m", "path": Path("m.gguf"), "source": ModelSource.LOCAL, "gpu_layers": None,
        "context_size": None, "chat_template": None, "system_prompt": None, "temperature": None,
        "top_p": None, "top_k": None, "grammar_file": None,
    },
    LLMConfig: {
        "default_model": None, "models_dir": Path.home() / ".cache/opencode/models",
        "gpu_layers": 0, "context_size": 4096, "max_tokens": 2048, "gpu_mode": GPUMode.NONE,
        "temperature": 0.7, "top_p": 0.9, "top_k": 40, "repeat_penalty": 1.1,
        "system_prompt": "You are a helpful assistant.", "chat_template": ChatTemplateType.AUTO,
        "server": {}, "aliases": {},
    },
    GGUFMetadata: dict.fromkeys(METADATA.split()),
}  # fmt: skip
FIELDS[LLMConfig]["server"] = FIELDS[ServerConfig]


def test_the_seventeen_names_are_there() -> None:
    assert len(SEVENTEEN.split()) == 17
    assert sorted(SEVENTEEN.split()) == sorted(opencode.__all__)
    assert all(getattr(opencode, name).__module__.startswith("llamalite.opencode")
               for name in opencode.__all__)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (ChatTemplateType, "auto chatml llama3 mistral qwen phi gemma dolphin vicuna openchat "
                           "causal_lm"),
        (GPUMode, "none cuda metal vulkan opencl"),
        (ModelSource, "local huggingface ollama"),
        (ModelStatus, "ready downloading error not_found"),
        (QuantizationType, "q2_k q3_k_s q3_k_m q3_k_l q4_0 q4_1 q4_k_s q4_k_m q4_k_l q5_0 q5_1 "
                           "q5_k_s q5_k_m q6_k q8_0 f16 f32"),
        (Role, "system user assistant tool"),
    ],
)  # fmt: skip
def test_enums_hold_these_values_and_equal_their_text(kind: Any, values: str) -> None:
    assert [member.value for member in kind] == values.split()
    for member in kind:
        assert kind[member.value.upper()] is member
        assert member == member.value


@pytest.mark.parametrize("kind", FIELDS)
def test_fields_and_defaults(kind: Any) -> None:
    needed = {"name": "m", "path": "m.gguf"} if kind is ModelConfig else {}
    made = kind(**needed)
    assert made.model_dump() == FIELDS[kind]
    assert list(made.model_dump()) == list(FIELDS[kind])
    assert kind(**made.model_dump()) == made
    assert kind(**json.loads(json.dumps(made.model_dump(mode="json")))) == made
    assert None not in made.model_dump(exclude_none=True).values()


def test_objects_share_no_defaults() -> None:
    one, other = LLMConfig(), LLMConfig()
    one.server.cors_origins.append("http://x")
    one.aliases["a"] = "b"
    assert other == LLMConfig()
    assert one.model_dump()["aliases"] is not one.aliases


def test_values_are_taken_as_the_original_takes_them() -> None:
    made = LLMConfig(models_dir="~/models", gpu_mode="cuda", server={"port": 9}, temperature=1)  # type: ignore[arg-type]
    assert made.models_dir == Path.home() / "models"
    assert made.gpu_mode is GPUMode.CUDA
    assert made.server == ServerConfig(port=9)
    large = LLMConfig(gpu_layers=-1, context_size=1_000_000, max_tokens=100_000)
    assert large.to_llamalite().n_ctx == 1_000_000
    assert ModelConfig("m", Path("m"), gpu_layers=-1, context_size=262_144).gpu_layers == -1


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: SamplingConfig(temperature=2.1), "temperature"),
        (lambda: SamplingConfig(top_p=-0.1), "top_p"),
        (lambda: SamplingConfig(top_k=0), "top_k"),
        (lambda: SamplingConfig(stop_sequences="x"), "stop_sequences"),  # type: ignore[arg-type]
        (lambda: ServerConfig(port=70_000), "port"),
        (lambda: LLMConfig(gpu_layers=-2), "gpu_layers"),
        (lambda: LLMConfig(context_size=True), "context_size"),
        (lambda: LLMConfig(gpu_mode="gpu"), "gpu_mode"),  # type: ignore[arg-type]
        (lambda: LLMConfig(server={"prt": 1}), "server"),  # type: ignore[arg-type]
        (lambda: LLMConfig(aliases={"a": 1}), "aliases"),  # type: ignore[dict-item]
        (lambda: LLMConfig(models_dir=None), "models_dir"),  # type: ignore[arg-type]
        (lambda: ModelConfig("m", None), "path"),  # type: ignore[arg-type]
        (lambda: ModelConfig(None, Path("m")), "name"),  # type: ignore[arg-type]
    ],
)
def test_wrong_values_are_one_line_that_names_the_field(make: Any, field: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        make()
    assert error.value.param == field
    assert field in str(error.value)
    assert "\n" not in str(error.value)


def test_configurations_say_the_same_in_llamalites_terms(tmp_path: Path) -> None:
    grammar = tmp_path / "g.gbnf"
    grammar.write_text('root ::= "é"', encoding="utf-8")
    made = ModelConfig(
        "m", tmp_path / "m.gguf", context_size=512, top_k=5, chat_template=ChatTemplateType.PHI,
        grammar_file=grammar,
    )  # fmt: skip
    assert made.to_llamalite() == config.ModelConfig(
        model=str(tmp_path / "m.gguf"), n_ctx=512, chat_template="phi3",
        sampling={"top_k": 5, "grammar": 'root ::= "é"'},
    )  # fmt: skip
    made.grammar_file = tmp_path / "absent"
    with pytest.raises(InvalidParameter, match="absent"):
        made.to_llamalite()
    own = LLMConfig(
        default_model="m", models_dir=tmp_path, aliases={"a": "m"}, server=ServerConfig(timeout=0)
    ).to_llamalite()
    assert (own.default_model, own.models_dir, own.n_ctx) == ("m", tmp_path, 4096)
    assert (own.sampling.repeat_penalty, own.sampling.max_tokens) == (1.1, 2048)
    assert own.server.timeout_s > 1e5
    assert own.aliases == {"a": "m"}
    sampling = SamplingConfig(seed=-1, stop_sequences=["x"]).to_llamalite()
    assert (sampling.seed, sampling.stop, sampling.top_p) == (None, ("x",), 0.9)


def test_every_chat_template_exists() -> None:
    for kind in ChatTemplateType:
        own = {"default": "{{ messages }}"}
        chosen = choose_template(own, LLMConfig(chat_template=kind).to_llamalite().chat_template)
        assert (chosen.source == own["default"]) is (kind is ChatTemplateType.AUTO)


def test_metadata_is_read_from_the_file(tmp_path: Path) -> None:
    path = write_llama(
        tmp_path / "m.gguf",
        **{"llama.attention.layer_norm_rms_epsilon": 0.5, "general.file_type": 7},
    )
    made = GGUFMetadata.from_gguf_file(path)
    assert made.get_model_info() == {
        "architecture": "llama", "model_type": "model", "quantization_version": 2,
        "tokenizer": "gpt2", "vocab_size": 3, "context_size": 2048, "embedding_size": 32,
        "attention_head_count": 8, "attention_head_count_kv": 4,
        "attention_layer_norm_rms_epsilon": 0.5, "feed_forward_dim": 64,
        "file_size": path.stat().st_size, "quantization_type": QuantizationType.Q8_0,
    }  # fmt: skip
    path.write_bytes(b"nonsense")
    with pytest.raises(NotGGUF):
        GGUFMetadata.from_gguf_file(path)


def test_model_info_as_a_dict() -> None:
    moment = datetime(2026, 1, 2, 3, 4)
    made = ModelInfo("m", Path("/m.gguf"), 1536, ModelStatus.READY, last_used=moment)
    assert made.to_dict() == {
        "name": "m", "path": "/m.gguf", "size": 1536, "size_formatted": "1.5 KB",
        "status": "ready", "source": "local", "metadata": None, "downloaded_at": None,
        "last_used": "2026-01-02T03:04:00",
    }  # fmt: skip
    made.metadata = GGUFMetadata(quantization_type=QuantizationType.F16)
    assert json.loads(json.dumps(made.to_dict()))["metadata"]["quantization_type"] == "f16"


def test_chat_messages_requests_and_responses() -> None:
    assert ChatMessage("user", "hi").to_dict() == {"role": "user", "content": "hi"}  # type: ignore[arg-type]
    assert ChatMessage(Role.TOOL, "4", name="add").to_dict()["name"] == "add"
    said = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stop": "x"}
    request = ChatCompletionRequest.from_dict(said)
    assert request == ChatCompletionRequest("m", [ChatMessage(Role.USER, "hi")], stop=["x"])
    assert (request.temperature, request.top_p, request.max_tokens) == (0.7, 1.0, None)
    assert (request.stream, request.seed) == (False, None)
    answer = ChatCompletionResponse("1", "m", [{"index": 0}])
    assert abs(answer.created - datetime.now().timestamp()) < 60
    assert answer.to_dict() == {
        "id": "1", "object": "chat.completion", "created": answer.created, "model": "m",
        "choices": [{"index": 0}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"messages": []}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": [], "max_token": 1}, "max_token"),
        ({"model": "m", "messages": "hi"}, "messages"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages"),
        ({"model": "m", "messages": [{"role": "robot", "content": ""}]}, "role"),
    ],
)
def test_nothing_of_a_request_is_dropped_in_silence(said: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        ChatCompletionRequest.from_dict(said)
    assert error.value.param == names


def test_signatures() -> None:
    def parameters(function: Any) -> str:
        return ", ".join(
            name if each.default is each.empty else f"{name}={each.default}"
            for name, each in inspect.signature(function).parameters.items()
        )

    assert parameters(ModelManager) == parameters(get_model_manager) == "config=None"
    assert parameters(LLMServer) == parameters(get_llm_server) == "config=None, llm_config=None"
    pull = ModelManager.pull_model
    assert parameters(pull) == "self, model_id, filename=None, progress_callback=None"
    for name in ("get_model", "inspect_model", "remove_model", "get_model_path"):
        assert parameters(getattr(ModelManager, name)) == "self, name"
    waited = (pull, LLMServer.start, LLMServer.stop, LLMServer.handle_chat_completions,
              LLMServer.handle_embeddings, LLMServer.handle_models)  # fmt: skip
    assert all(inspect.iscoroutinefunction(function) for function in waited)


def test_a_server_that_is_not_started_says_so() -> None:
    server = get_llm_server(ServerConfig(port=1234))
    assert get_llm_server() is server
    assert server.is_running is False
    request = ChatCompletionRequest("m", [])
    for refused in (
        server.handle_models(), server.handle_embeddings({}),
        server.handle_chat_completions(request),
    ):  # fmt: skip
        with pytest.raises(EngineError, match="start") as error:
            asyncio.run(refused)
        assert "\n" not in str(error.value)
    asyncio.run(server.stop())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[LoopbackHub, dict[str, str]]]:
    """A Hub with one model, and the environment of a computer that has none."""
    content = write_llama(tmp_path / "tiny.gguf").read_bytes()
    files = {"TinyLlama-1B.Q4_K_M.gguf": content, "TinyLlama-1B.Q8_0.gguf": content + b"\0" * 99}
    with LoopbackHub(repos={REPO: files}) as hub:
        wanted = {name: value for name, value in os.environ.items() if "HF_" not in name}
        yield (
            hub,
            {
                **wanted,
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "hf"),
                "LLAMALITE_HOME": str(tmp_path / "home"),
                "HOME": str(tmp_path),
                "PYTHONPATH": str(ROOT),
            },
        )


SNIPPET = """
import asyncio
from llamalite.opencode import LLMConfig, ServerConfig, get_llm_server, get_model_manager

name = "tinyllama"

async def main():
    config = LLMConfig(default_model="tinyllama", models_dir=..., gpu_layers=0, context_size=4096, temperature=0.7, server=ServerConfig(host="127.0.0.1", port=8080))
    print(config.models_dir)
    manager = get_model_manager(); manager.list_models(); await manager.pull_model("owner/TinyLlama-1B-GGUF"); manager.inspect_model(name); manager.remove_model(name)
    print(manager.list_models())
    manager = get_model_manager(config)
    calls = []
    pulled = await manager.pull_model("owner/TinyLlama-1B-GGUF", "TinyLlama-1B.Q8_0.gguf", lambda *call: calls.append(call))
    assert calls == sorted(calls) and calls[-1] == (pulled.size, pulled.size), calls
    manager.update_last_used(name)
    found = manager.get_model(name)
    print(found.status.value, found.source.value, found.last_used >= found.downloaded_at)
    print(manager.inspect_model(name).architecture, manager.get_model_path(name).name)
    print(manager.get_model("absent"), manager.remove_model("absent"), manager.remove_model(name))
    print(found.path.exists())
    server = get_llm_server(ServerConfig(port=0), LLMConfig(models_dir=config.models_dir)); await server.start()
    print(server.is_running, [model["id"] for model in (await server.handle_models())["data"]])
    await server.stop(); print(server.is_running)

asyncio.run(main())
"""  # noqa: E501 # as programs have it


def test_a_program_written_for_opencode_runs(
    place: tuple[LoopbackHub, dict[str, str]], tmp_path: Path
) -> None:
    _, env = place
    done = subprocess.run(
        [sys.executable, "-c", SNIPPET], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        str(tmp_path / ".cache/opencode/models"),
        "[]",
        "ready huggingface True",
        "llama TinyLlama-1B.Q8_0.gguf",
        "None False True",
        "False",
        "True []",
        "False",
    ], done.stderr


def test_opencodes_command_lines(place: tuple[LoopbackHub, dict[str, str]]) -> None:
    _, env = place

    def llamalite(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llamalite", *args],
            env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "TinyLlama" not in llamalite("list", "-v")
    path = Path(llamalite("pull", REPO, "-f", "TinyLlama-1B.Q8_0.gguf").strip())
    assert path.name == "TinyLlama-1B.Q8_0.gguf"
    listed = llamalite("list", "-v")
    assert "TinyLlama" in listed
    assert "Q8_0" in listed
    assert "llama" in llamalite("show", "tinyllama")
    llamalite("remove", "tinyllama", "-f")
    assert not path.exists()
    assert json.loads(llamalite("list", "--json")) == []
