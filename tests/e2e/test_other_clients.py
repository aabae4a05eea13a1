"""Clients that other people write against OpenAI's API: npm's openai, langchain, litellm, curl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support.live_server import Server

SKY = "What colour is the sky? Answer in one word."

NODE = """
import OpenAI from 'openai';
const client = new OpenAI({ baseURL: process.env.BASE, apiKey: 'sesame', maxRetries: 0 });
const messages = [{ role: 'user', content: process.env.SKY }];
const said = { model: 'smollm2', messages, temperature: 0, max_tokens: 8 };
const whole = await client.chat.completions.create(said);
let text = '';
for await (const chunk of await client.chat.completions.create({ ...said, stream: true })) {
  text += chunk.choices[0]?.delta?.content ?? '';
}
const embedded = await client.embeddings.create({ model: 'smollm2', input: ['a', 'b'] });
let refused = null;
try { await client.chat.completions.create({ ...said, temperature: -1 }); } catch (error) {
  refused = [error instanceof OpenAI.BadRequestError, error.param];
}
const models = (await client.models.list()).data.map((model) => model.id);
console.log(JSON.stringify({
  whole: whole.choices[0].message.content, text, refused, models,
  n: embedded.data[0].embedding.length,
}));
"""


def test_the_npm_client(waitress: Server, tmp_path: Path) -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm aren't on PATH")
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent", "openai"],
        cwd=tmp_path, check=True, timeout=240,
    )  # fmt: skip
    (tmp_path / "ask.mjs").write_text(NODE)
    done = subprocess.run(
        ["node", "ask.mjs"], cwd=tmp_path, check=False, timeout=120, capture_output=True, text=True,
        env={**os.environ, "BASE": f"{waitress.address}/v1", "SKY": SKY},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "blue" in said["whole"].lower()
    assert said["text"] == said["whole"]
    assert said["n"] == 576
    assert said["refused"] == [True, "temperature"]
    assert said["models"][0] == "smollm2"


@pytest.mark.clients
def test_langchain(waitress: Server) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    chat = langchain_openai.ChatOpenAI(
        base_url=f"{waitress.address}/v1", api_key="sesame", model="smollm2", temperature=0,
        max_tokens=8,
    )  # fmt: skip
    answer = chat.invoke(SKY)
    assert "blue" in answer.content.lower()
    assert answer.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in chat.stream(SKY)) == answer.content


@pytest.mark.clients
def test_litellm(waitress: Server) -> None:
    litellm = pytest.importorskip("litellm")
    said = {
        "model": "openai/smollm2", "api_base": f"{waitress.address}/v1", "api_key": "sesame",
        "messages": [{"role": "user", "content": SKY}], "temperature": 0, "max_tokens": 8,
    }  # fmt: skip
    answer = litellm.completion(**said)
    assert "blue" in answer.choices[0].message.content.lower()
    text = "".join(
        chunk.choices[0].delta.content or "" for chunk in litellm.completion(**said, stream=True)
    )
    assert text == answer.choices[0].message.content


def test_curl_shows_tokens_as_they_come(waitress: Server) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl isn't on PATH")
    body = {"prompt": "Once upon a time", "max_tokens": 60, "ignore_eos": True, "stream": True}
    command = ["curl", "-sN", f"{waitress.address}/v1/completions",
               "-H", "Authorization: Bearer sesame", "-d", json.dumps(body)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    arrivals = [time.monotonic() for line in process.stdout if line.startswith("data:")]
    assert process.wait(10) == 0
    assert len(arrivals) > 30
    # Had they been kept back, all would have come at once.
    assert arrivals[len(arrivals) // 2] - arrivals[0] > 0.2 * (arrivals[-1] - arrivals[0])
    assert arrivals[-1] - arrivals[0] > 0.1
