"""What the app says before any model is involved, through the WSGI validator."""

from __future__ import annotations

import json
from pathlib import Path
from wsgiref.validate import validator

import falcon.testing
import pytest

from llamalite.server.app import create_app
from llamalite.server.site import SiteConfig


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMALITE_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("LLAMALITE_OFFLINE", "1")


def client_of(**config: object) -> falcon.testing.TestClient:
    app = create_app(SiteConfig(**config), say=lambda line: None)  # type: ignore[arg-type]
    checked = validator(app)

    def checked_app(environ, start_response):  # falcon asks for the names of the arguments
        return checked(environ, start_response)

    return falcon.testing.TestClient(checked_app)


CHAT = {"messages": [{"role": "user", "content": "hi"}]}


def post(client: falcon.testing.TestClient, body: object = None, raw: bytes | None = None, **more):
    data = json.dumps(CHAT if body is None else body).encode() if raw is None else raw
    return client.simulate_post("/v1/chat/completions", body=data, **more)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"messages": NaN}', 400),
        (b'{"messages": "\xff"}', 400),
        (b'{"messages": []}', 400),
        (b'{"messages": [{"role": "user", "content": "x"}]}', 404),  # there is no model
        (b'{"messages": 3}', 400),
        (b'{"messages": [{"role": 3, "content": "x"}]}', 400),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": "2"}', 400),
        (b'{"messages": [{"role": "user", "content": "x"}], "temperature": true}', 400),
        (b'{"messages": ' + b"[" * 500 + b"]" * 500 + b"}", 400),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", 400),
        (b'{"messages": [], "tools": [{}]}', 501),
        (b'{"messages": [], "audio": {"voice": "x"}}', 400),
        (b'{"messages": [], "stream_options": {"include_usage": true}}', 400),
    ],
)
def test_bodies_that_cannot_be_answered(raw: bytes, status: int) -> None:
    answer = post(client_of(), raw=raw)
    assert answer.status_code == status, answer.text
    error = answer.json["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text


def test_the_field_at_fault_is_named() -> None:
    answer = post(client_of(), {"messages": [{"role": "user", "content": 3}]})
    assert answer.json["error"]["param"] == "messages[0].content"


def test_a_large_body_is_refused_unread() -> None:
    answer = post(client_of(max_body_bytes=1024), raw=b"x" * 2000)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "C:\\x.gguf", "nothing", "a" * 5000, "http://x/y.gguf"],
)
def test_names_of_strangers_are_never_paths(name: str, tmp_path: Path) -> None:
    (tmp_path / "nothing").write_bytes(b"GGUF")
    answer = post(client_of(), {**CHAT, "model": name})
    assert answer.status_code in (400, 404)
    assert len(answer.text) < 1000


def test_a_key_is_asked_for_and_compared() -> None:
    client = client_of(api_keys=("one", "two"))
    assert post(client).status_code == 401
    assert post(client, headers={"Authorization": "Bearer three"}).status_code == 401
    for header in ({"Authorization": "Bearer two"}, {"X-Api-Key": "one"}):
        assert post(client, headers=header).status_code == 404
    assert client.simulate_get("/health").status_code == 200


def test_only_own_hosts_are_answered() -> None:
    client = client_of(allowed_hosts=("localhost", "127.0.0.1", "[::1]"))
    for host in ("localhost:8080", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert client.simulate_get("/health", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil:80"):
        assert client.simulate_get("/health", headers={"Host": host}).status_code == 403


def test_pages_of_other_origins_may_not_ask_unless_listed() -> None:
    closed, opened = client_of(), client_of(cors_origins=("https://good.example",))
    evil, good = {"Origin": "https://evil.example"}, {"Origin": "https://good.example"}
    assert post(closed, headers=evil).status_code == 403
    assert post(opened, headers=evil).status_code == 403
    answer = post(opened, headers=good)
    assert answer.status_code == 404
    assert answer.headers["access-control-allow-origin"] == "https://good.example"
    preflight = opened.simulate_options("/v1/chat/completions", headers=good)
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]


def test_addresses_that_come_later_say_so() -> None:
    client = client_of()
    for path in ("/rerank", "/v1/rerank", "/infill", "/lora-adapters"):
        answer = client.simulate_post(path, body=b"{}")
        assert answer.status_code == 501
        assert answer.json["error"]["type"] == "not_supported_error"
    assert client.simulate_get("/nowhere").status_code == 404
    assert client.simulate_get("/v1/chat/completions").status_code == 405


def test_models_of_an_empty_computer() -> None:
    client = client_of()
    assert client.simulate_get("/v1/models").json == {"object": "list", "data": []}
    assert client.simulate_get("/v1/models/a/b").status_code == 404


def test_the_description_names_every_field_of_every_schema() -> None:
    said = client_of().simulate_get("/openapi.json").json
    assert said["openapi"].startswith("3.1")
    chat = said["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    assert chat["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatRequest"}
    properties = said["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"messages", "temperature", "response_format", "top_k"} <= set(properties)
    assert "tools" not in properties  # they come with a later version
    for path in said["paths"]:
        assert client_of().simulate_options(path).status_code != 404
