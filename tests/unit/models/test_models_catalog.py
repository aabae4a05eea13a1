from __future__ import annotations

import re

import pytest

from llamalite.models.names.catalog import (
    ALIASES,
    CATALOG,
    DEFAULT_MODEL,
    find_entry,
    known_names,
    nearest_names,
)
from llamalite.models.names.reference import parse_reference


@pytest.mark.parametrize("name", ["smollm2:135m", "SmolLM2:135M", " smollm2 "])
def test_short_names_and_aliases_are_found_whatever_their_case(name: str) -> None:
    entry = find_entry(name)
    assert entry is not None
    assert entry.name == DEFAULT_MODEL


def test_other_names_are_not_found_but_near_ones_are_suggested() -> None:
    assert find_entry("smolm2:135m") is None
    assert nearest_names("smolm2:135m") == ["smollm2:135m"]
    assert nearest_names("zzz") == []


def test_every_entry_is_well_formed() -> None:
    assert len(set(known_names())) == len(CATALOG)
    assert set(ALIASES.values()) <= set(known_names())
    for entry in CATALOG:
        assert entry.name == entry.name.lower()
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        assert parse_reference(f"hf:{entry.repo}/{entry.file}") is not None
        if entry.wheel:
            assert re.fullmatch(r"[a-z0-9-]+==[\d.]+", entry.wheel.requirement)
