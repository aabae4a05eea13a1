"""The fingerprint where written bytes can't be seen: never a wrong offset, never garbage passed."""

from __future__ import annotations

import ctypes
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
CASES = [(what, layout) for what, family in FAMILIES.items() for layout in family]
NAMES = [layout.name for _, layout in CASES]
BOUNDLESS = layouts.MILESTONES["llama_get_causal_attn"]


def returned(truth: Layout, garbage: bytes) -> Capture:
    """What ctypes gives for a struct returned by value: garbage in holes and after the end."""
    struct = truth.struct()
    for letter, name in truth.fields:
        allowed = sorted(fingerprint._DEFAULTS.get(name, {0}))
        if letter != "p":
            setattr(struct, name, allowed[-1])
    content = bytes(struct).ljust(512, b"\0")
    kept = truth.field_bytes
    return Capture(bytes(content[i] if i in kept else garbage[i] for i in range(512)), None)


def builds_of(build: int) -> tuple[int, int]:
    """What the exported symbols tell of a build."""
    return layouts.build_range(frozenset(n for n, b in layouts.MILESTONES.items() if b <= build))


def places(layout: Layout) -> set[tuple[str, int]]:
    """Where each field lies, by its first name: tt_overrides was called tensor_types."""
    old = {"tt_overrides": "tensor_types"}
    return {(old.get(name, name), layout.offset(name)) for _, name in layout.fields}


garbage_bytes = st.one_of(
    st.binary(min_size=512, max_size=512),
    st.sampled_from([0, 1, 0x55, 0xFF]).map(lambda byte: bytes([byte]) * 512),
)


@given(st.sampled_from(CASES), st.data(), garbage_bytes)
def test_no_field_is_ever_misplaced(
    case: tuple[str, Layout], data: st.DataObject, garbage: bytes
) -> None:
    what, truth = case
    build = data.draw(st.integers(truth.first_build, truth.last_build))
    try:
        found = choose(what, FAMILIES[what], returned(truth, garbage), builds_of(build))
    except AbiMismatch:
        assert build >= BOUNDLESS
        return
    assert places(truth) <= places(found)


@given(st.sampled_from(CASES), st.data(), garbage_bytes)
def test_a_layout_taken_from_the_registry_is_missed(
    case: tuple[str, Layout], data: st.DataObject, garbage: bytes
) -> None:
    what, truth = case
    family = FAMILIES[what]
    others = tuple(layout for layout in family if layout is not truth)
    build = data.draw(st.integers(truth.first_build, truth.last_build))
    with pytest.raises(AbiMismatch, match="llamalite lib install"):
        choose(what, others, returned(truth, garbage), builds_of(build))


def test_what_may_be_newer_than_the_known_is_refused_unless_forced() -> None:
    newest = layouts.CONTEXT_PARAMS[-1]
    seen = returned(newest, bytes(range(256)) * 2)
    builds = builds_of(layouts.LATEST_KNOWN_BUILD)
    with pytest.raises(AbiMismatch, match=r"without libffi .*LLAMALITE_LAYOUT=C9") as caught:
        choose("llama_context_params", layouts.CONTEXT_PARAMS, seen, builds)
    assert "\n" not in str(caught.value)
    forced = choose("llama_context_params", layouts.CONTEXT_PARAMS, seen, builds, forced="C9")
    assert forced is newest
    with pytest.raises(AbiMismatch, match="layout C8 "):
        choose("llama_context_params", layouts.CONTEXT_PARAMS, seen, builds, forced="C8")


def test_same_types_under_other_names_are_no_agreement() -> None:
    # M1's use_mlock lies where M5 has use_direct_io; only the symbols tell these two apart.
    registry = layouts.MODEL_PARAMS
    m5 = next(layout for layout in registry if layout.name == "M5")
    struct = m5.struct.from_buffer_copy(returned(m5, b"\0" * 512).content)
    struct.use_direct_io = False
    seen = Capture(bytes(struct).ljust(512, b"\0"), None)
    with pytest.raises(AbiMismatch):
        choose("llama_model_params", registry, seen, (5640, 10104))
    assert choose("llama_model_params", registry, seen, (7668, 10104)) is m5


@pytest.mark.parametrize(("what", "truth"), CASES, ids=NAMES)
def test_bytes_that_are_no_field_are_passed_as_zeros(what: str, truth: Layout) -> None:
    struct = fingerprint.read_defaults(truth, returned(truth, b"\xaa" * 512))
    passed = bytes(struct)
    assert ctypes.sizeof(struct) == truth.size + layouts.SLACK_BYTES
    assert not any(byte for i, byte in enumerate(passed) if i not in truth.field_bytes)
    exact = bytes(returned(truth, b"\0" * 512).content)
    assert [passed[i] for i in truth.field_bytes] == [exact[i] for i in truth.field_bytes]


def test_pointers_that_mean_containers_are_never_taken_for_arrays() -> None:
    # Q3 and Q4 differ in nothing but what their pointers mean; where both are possible, Q3's
    # reading is the one that leaves them NULL.
    q3, q4 = (layout for layout in layouts.QUANTIZE_PARAMS if layout.name in {"Q3", "Q4"})
    for truth, build in itertools.product((q3, q4), (q3.last_build, q4.first_build)):
        found = choose(
            "llama_model_quantize_params",
            layouts.QUANTIZE_PARAMS,
            returned(truth, b"\0" * 512),
            builds_of(build),
        )
        assert found is q3
