"""Layout tables against facts about upstream, and the fingerprint against made-up libraries."""

from __future__ import annotations

import itertools

import pytest

from llamalite.errors import AbiMismatch
from llamalite.ffi import fingerprint, layouts
from llamalite.ffi.capture import Capture
from llamalite.ffi.fingerprint import choose
from llamalite.ffi.layouts import Layout

FAMILIES = {
    "llama_model_params": layouts.MODEL_PARAMS,
    "llama_context_params": layouts.CONTEXT_PARAMS,
    "llama_model_quantize_params": layouts.QUANTIZE_PARAMS,
}
OFFSETS_CHOSEN = [
    (what, layout) for what in ("llama_model_params", "llama_context_params")
    for layout in FAMILIES[what]
]  # fmt: skip

SIZES = {
    "M1": 72, "M2": 72, "M3": 72, "M4": 72, "M5": 72, "M6": 72, "M7": 72, "M8": 80,
    "C1": 120, "C2": 120, "C3": 120, "C4": 136, "C5": 144, "C6": 152, "C7": 160, "C8": 160,
    "C9": 168, "Q1": 48, "Q2": 56, "Q3": 56, "Q4": 56, "Q5": 64,
    "T1": 32, "T2": 40, "T3": 48, "T4": 40, "T5": 40, "T6": 56, "T7": 64, "T8": 80, "T9": 96,
}  # fmt: skip
OFFSETS = [
    ("M8", "load_mode", 24), ("M8", "lazy_mode", 28), ("M8", "main_gpu", 32),
    ("M8", "tensor_split", 40), ("M8", "vocab_only", 72),
    ("C1", "rope_scaling_type", 24), ("C3", "embeddings", 112), ("C5", "rope_scaling_type", 32),
    ("C5", "embeddings", 120), ("C7", "rope_scaling_type", 36), ("C7", "embeddings", 128),
    ("C8", "rope_scaling_type", 40), ("C8", "embeddings", 128), ("C9", "moe_cache_size", 112),
    ("C9", "embeddings", 136), ("Q1", "imatrix", 24), ("Q3", "dry_run", 21),
    ("Q5", "max_buf_size", 56), ("T3", "media_marker", 24), ("T8", "media_marker", 16),
    ("T9", "media_marker", 32),
]  # fmt: skip
EVERY = {
    layout.name: layout for family in (*FAMILIES.values(), layouts.MTMD_PARAMS) for layout in family
}


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_sizes_are_upstreams(name: str, size: int) -> None:
    assert EVERY[name].size == size


@pytest.mark.parametrize(("name", "field", "offset"), OFFSETS)
def test_offsets_are_upstreams(name: str, field: str, offset: int) -> None:
    assert EVERY[name].offset(field) == offset


@pytest.mark.parametrize(
    "family", [*FAMILIES.values(), layouts.MTMD_PARAMS], ids=lambda f: f[0].name
)
def test_build_ranges_leave_no_gap(family: tuple[Layout, ...]) -> None:
    for older, newer in itertools.pairwise(family):
        assert newer.first_build <= older.last_build + 1
        assert newer.first_build > older.first_build
    assert family[-1].last_build == layouts.LATEST_KNOWN_BUILD


def made_up(layout: Layout, *, tail: bytes = b"") -> Capture:
    """What a library with this layout would return."""
    struct = layout.struct()
    for _, name in layout.fields:
        allowed = sorted(fingerprint._DEFAULTS.get(name, {0}))
        value = allowed[-1] if allowed else 0
        setattr(struct, name, value or (None if name in {"devices"} else value))
    content = bytes(struct) + tail
    written = set(layout.field_bytes) | set(range(layout.size, layout.size + len(tail)))
    return Capture(content.ljust(512, b"\xaa"), frozenset(written))


@pytest.mark.parametrize(("what", "truth"), OFFSETS_CHOSEN, ids=lambda v: getattr(v, "name", ""))
def test_fingerprint_finds_the_layout_among_all(what: str, truth: Layout) -> None:
    builds = (truth.first_build, truth.first_build)
    assert choose(what, FAMILIES[what], made_up(truth), builds) is truth


@pytest.mark.parametrize(("what", "truth"), OFFSETS_CHOSEN, ids=lambda v: getattr(v, "name", ""))
def test_a_layout_taken_from_the_registry_is_missed(what: str, truth: Layout) -> None:
    registry = tuple(layout for layout in FAMILIES[what] if layout is not truth)
    builds = (truth.first_build, truth.first_build)
    with pytest.raises(AbiMismatch, match="llamalite lib install"):
        choose(what, registry, made_up(truth), builds)


@pytest.mark.parametrize(("what", "truth"), OFFSETS_CHOSEN, ids=lambda v: getattr(v, "name", ""))
def test_forcing_any_other_layout_is_refused(what: str, truth: Layout) -> None:
    builds = (truth.first_build, truth.first_build)
    seen = made_up(truth)
    assert choose(what, FAMILIES[what], seen, builds, forced=truth.name) is truth
    for wrong in FAMILIES[what]:
        if wrong is not truth:
            with pytest.raises(AbiMismatch, match=f"layout {wrong.name} "):
                choose(what, FAMILIES[what], seen, builds, forced=wrong.name)


def test_same_size_other_order_is_told_apart() -> None:
    c7, c8 = EVERY["C7"], EVERY["C8"]
    assert c7.size == c8.size
    for truth, other in ((c7, c8), (c8, c7)):
        assert fingerprint.values_fit(truth, made_up(truth).content)
        assert not fingerprint.values_fit(other, made_up(truth).content)


def test_a_longer_struct_of_the_future_is_refused() -> None:
    newest = EVERY["C9"]
    seen = made_up(newest, tail=b"\1\0\0\0\0\0\0\0")
    with pytest.raises(AbiMismatch, match=r"b12000 or newer.*known are b5640 to b11739"):
        choose("llama_context_params", layouts.CONTEXT_PARAMS, seen, (12000, 10**9))


def test_symbols_bound_the_build() -> None:
    none: frozenset[str] = frozenset()
    assert layouts.build_range(none) == (0, 5717)
    up_to = frozenset(name for name, build in layouts.MILESTONES.items() if build <= 9860)
    assert layouts.build_range(up_to) == (9860, 10104)
    contradictory = frozenset({"llama_get_causal_attn"})
    first, last = layouts.build_range(contradictory)
    assert first > last
