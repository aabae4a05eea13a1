"""What a refusal means, for who has a token and who hasn't."""

from __future__ import annotations

import pytest

from llamalite.models.hub.refusals import refusal


def gated() -> str:
    return refusal(403, "Forbidden", "GatedRepo", "o/r")


def test_whoever_has_a_token_is_not_told_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    page = "https://hub.example/o/r"
    assert gated() == f"accept its terms at {page} first, then set HF_TOKEN"
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert gated() == f"the token in use isn't let in: accept the terms at {page} with its account"
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    assert gated().startswith("the HF_TOKEN that is set isn't let in: accept ")
    assert refusal(401, "Unauthorized", "RepoNotFound", "o/r") == (
        "no such repository, or a private one where the HF_TOKEN that is set isn't let in"
    )
    assert refusal(403, "Forbidden", "", "o/r").endswith("the HF_TOKEN that is set isn't let in")
    assert refusal(403, "Forbidden", "", None).endswith(": it wants a login")
