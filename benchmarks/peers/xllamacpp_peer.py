"""xllamacpp: llama.cpp's own server in this process, through its Python API or over HTTP."""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import xllamacpp
from peers.replay import OnTokens, Peer


class XllamacppPeer(Peer):
    """Options: "http" sends requests over HTTP; all others are fields of its CommonParams.

    Settings that the job doesn't name stay as the package has them.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        options = dict(job["options"])
        self._http = options.pop("http", False)
        params = xllamacpp.CommonParams()
        params.model.path = job["model"]
        params.n_parallel = job["n_parallel"]
        params.n_ctx = job["n_ctx"] * job["n_parallel"]
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job["n_threads"]
        for name, value in options.items():
            setattr(params, name, value)
        self._server = xllamacpp.Server(params)
        address = urllib.parse.urlsplit(self._server.listening_address)
        self._host, self._port = address.hostname, address.port

    def generate(self, prompt: list[int], n_tokens: int, on_tokens: OnTokens) -> dict[str, Any]:
        body = json.dumps(
            {
                "prompt": prompt,
                "max_tokens": n_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
            }
        )
        counter = _Counter(on_tokens)
        if not self._http:
            self._server.handle_completions(body, counter.take)
        else:
            for line in self._lines(body):
                if counter.take(line):
                    break
        return {"n_evaluated": counter.n_evaluated, "n_generated": counter.n_generated}

    def _lines(self, body: str) -> Iterator[bytes]:
        connection = http.client.HTTPConnection(self._host, self._port)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.request("POST", "/v1/completions", body)
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(response.read().decode())
            for line in response:
                if line.startswith(b"data: {"):
                    yield line[6:]
        finally:
            connection.close()

    def facts(self) -> dict[str, Any]:
        return {
            "version": metadata.version("xllamacpp"),
            "system": xllamacpp.get_system_info(),
        }


class _Counter:
    """Counts the tokens in a stream of chunks."""

    def __init__(self, on_tokens: OnTokens) -> None:
        self._on_tokens = on_tokens
        self.n_evaluated = self.n_generated = None

    def take(self, chunk: Any) -> bool:
        # PERF: all but the last chunk are told apart without parsing them.
        text = chunk if isinstance(chunk, (str, bytes)) else json.dumps(chunk)
        if isinstance(text, bytes):
            text = text.decode()
        if '"timings"' not in text:
            if '"error"' in text and '"choices"' not in text:
                raise RuntimeError(text)
            return self._on_tokens(1)
        timings = json.loads(text)["timings"]
        self.n_evaluated, self.n_generated = timings["prompt_n"], timings["predicted_n"]
        return False
