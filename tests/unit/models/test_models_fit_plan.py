"""Whether models fit machines, which layers and contexts do, and what is said about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.shaped_models import write_shaped

from llamalite.errors import DoesNotFit, InvalidParameter
from llamalite.gguf import GGMLType, GGUFReader
from llamalite.models.fit.estimate import estimate
from llamalite.models.fit.machine import DeviceMemory, Machine, Ram
from llamalite.models.fit.plan import Plan, Projector, check_fits, context_length, plan
from llamalite.models.fit.report import lines, to_dict, verdict

MIB = 1 << 20
PLENTY = 1 << 50


@pytest.fixture
def model(tmp_path: Path) -> GGUFReader:
    path = write_shaped(tmp_path / "m.gguf", "llama", n_embd=64, n_ff=64, n_vocab=256)
    return GGUFReader(path)


def ram(n_bytes: int | None, *devices: int, shares_ram: bool = False) -> Machine:
    gpus = (DeviceMemory(f"GPU{i}", free, free, shares_ram) for i, free in enumerate(devices))
    return Machine(Ram(n_bytes, n_bytes or 0), tuple(gpus))


def test_the_largest_context_is_the_largest(model: GGUFReader) -> None:
    for n_ctx in (256, 1024, 5120, 8192):
        need = estimate(model, n_ctx).total.total_bytes
        assert plan(model, ram(need), n_ctx=n_ctx).fits
        assert plan(model, ram(need)).largest_n_ctx == n_ctx
        short = plan(model, ram(need - 1), n_ctx=n_ctx)
        assert (short.fits, short.largest_n_ctx) == (False, n_ctx - 256)
    assert plan(model, ram(PLENTY)).largest_n_ctx == 8192  # as it was trained
    assert plan(model, ram(PLENTY), n_seq_max=3).largest_n_ctx == 3 * 8192
    assert plan(model, ram(0)).largest_n_ctx == 0
    wide = {"type_k": GGMLType.F32, "type_v": GGMLType.F32}
    small = plan(model, ram(30 * MIB), **wide).largest_n_ctx
    assert small < plan(model, ram(30 * MIB), type_k=8, type_v=8).largest_n_ctx


def test_most_layers_go_to_the_gpu_that_fit(model: GGUFReader) -> None:
    for n in (1, 4, 8, 9):
        need = estimate(model, 2048, n_gpu_layers=n).devices[0].total_bytes
        assert plan(model, ram(PLENTY, need), n_ctx=2048).n_gpu_layers == n
        assert plan(model, ram(PLENTY, need - 1), n_ctx=2048).n_gpu_layers == n - 1
    assert plan(model, ram(PLENTY, 0), n_ctx=2048).n_gpu_layers == 0
    assert plan(model, ram(PLENTY), n_ctx=2048, n_gpu_layers=-1).n_gpu_layers == 0
    both = plan(model, ram(PLENTY, PLENTY, PLENTY), n_ctx=2048)
    assert (both.n_gpu_layers, len(both.estimate.devices)) == (9, 2)
    forced = plan(model, ram(PLENTY, 0, PLENTY), n_gpu_layers=99)
    assert (forced.n_gpu_layers, forced.estimate.devices[0].total_bytes) == (9, 0)


def test_the_gpu_relieves_the_ram(model: GGUFReader) -> None:
    rest = estimate(model, 8192, n_gpu_layers=9).host.total_bytes
    assert not plan(model, ram(rest)).fits
    assert plan(model, ram(rest, PLENTY)).n_gpu_layers == 9
    assert not plan(model, ram(rest - 1, PLENTY)).fits


def test_a_gpu_without_memory_of_its_own_relieves_nothing(model: GGUFReader) -> None:
    need = estimate(model, 8192, n_gpu_layers=9)
    total = need.total.total_bytes
    assert plan(model, ram(total, PLENTY, shares_ram=True)).n_gpu_layers == 9
    assert plan(model, ram(total - 1, PLENTY, shares_ram=True)).n_gpu_layers < 9
    found = plan(model, ram(need.host.total_bytes, PLENTY, shares_ram=True), n_gpu_layers=-1)
    assert [room.fits for room in found.rooms] == [False, True]


def test_what_does_not_fit_is_shown_with_what_would(model: GGUFReader) -> None:
    need = estimate(model, 1024, n_gpu_layers=3)
    tight = ram(need.host.total_bytes, need.devices[0].total_bytes)
    found = plan(model, tight, n_ctx=8192)
    assert not found.fits
    assert found.largest_n_gpu_layers is None
    assert found.largest_n_ctx >= 1024
    assert plan(model, tight, n_ctx=found.largest_n_ctx).fits


@pytest.mark.parametrize(
    ("trained", "wanted", "n_seq_max", "n_ctx"),
    [
        (2048, None, 1, 2048),
        (131072, None, 1, 8192),
        (131072, 0, 1, 131072),
        (2048, 4096, 1, 4096),
        (0, None, 1, 8192),
        (0, 0, 1, 8192),
        (524288, None, 4, 32768),
    ],
)
def test_context_length(trained: int, wanted: int | None, n_seq_max: int, n_ctx: int) -> None:
    assert context_length(trained, wanted, n_seq_max) == n_ctx


def refused(model: GGUFReader, machine: Machine, **asked: Any) -> str:
    with pytest.raises(DoesNotFit) as caught:
        check_fits(model, machine=machine, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_loading_is_refused_with_both_numbers(model: GGUFReader) -> None:
    said = refused(model, ram(20 * MIB), n_ctx=8192)
    need = estimate(model, 8192).total.total_bytes
    assert f"a context of 8192 tokens it needs {need / 1e6:.1f} MB of RAM (21.0 MB free)" in said
    n_ctx = int(said.partition("--ctx-size ")[2].split()[0])
    assert check_fits(model, machine=ram(20 * MIB), n_ctx=n_ctx) == 0
    assert said.endswith(" fits, and 'llamalite run --force' loads it all the same")
    assert "a smaller model or quantization may fit" in refused(model, ram(MIB))
    limited = ram(MIB)._replace(ram=Ram(MIB, MIB, "the memory limit of /jail"))
    assert "(1.0 MB free), by the memory limit of /jail: " in refused(model, limited)


def test_layers_asked_for_must_fit(model: GGUFReader) -> None:
    free = estimate(model, 8192, n_gpu_layers=4).devices[0].total_bytes
    said = refused(model, ram(PLENTY, free), n_ctx=8192, n_gpu_layers=-1)
    assert "MB of GPU0 (" in said
    assert "--gpu-layers 4 fits" in said
    assert check_fits(model, machine=ram(PLENTY, free), n_ctx=8192, n_gpu_layers=4) == 4
    assert "GPU0 (0 bytes free)" in refused(model, ram(PLENTY, 0), n_gpu_layers=1)


def test_layers_not_asked_for_are_as_many_as_fit_and_that_is_said(model: GGUFReader) -> None:
    lines: list[str] = []
    free = estimate(model, 8192, n_gpu_layers=4).devices[0].total_bytes
    assert check_fits(model, machine=ram(PLENTY, free), n_ctx=8192, say=lines.append) == 4
    assert lines == [
        f"4 of 9 layers fit on the GPU (GPU0 has {free / 1e6:.1f} MB free): the others compute on "
        f"the CPU"
    ]
    assert check_fits(model, machine=ram(PLENTY, PLENTY), say=lines.append) == 9
    assert check_fits(model, machine=ram(PLENTY), say=lines.append) == 0
    assert len(lines) == 1


def test_the_smaller_batch_counts(model: GGUFReader) -> None:
    free = estimate(model, 8192, n_ubatch=32).total.total_bytes
    assert check_fits(model, machine=ram(free), n_batch=32) == 0
    refused(model, ram(free), n_batch=33)


def test_nothing_is_refused_where_nobody_knows_what_is_free(model: GGUFReader) -> None:
    unknown = ram(None)
    assert check_fits(model, machine=unknown, n_ctx=1 << 30) == 0
    assert "how much is free isn't known" in verdict(plan(model, unknown))
    assert "unknown" in "\n".join(lines(plan(model, unknown)))


def test_settings_are_checked(model: GGUFReader) -> None:
    with pytest.raises(InvalidParameter, match="n_seq_max is 0"):
        plan(model, ram(PLENTY), n_seq_max=0)


def numbers(found: Plan) -> dict[str, Any]:
    """What a plan says as JSON, after the trip through it."""
    told: dict[str, Any] = json.loads(json.dumps(to_dict(found)))
    return told


def test_json_adds_up(model: GGUFReader) -> None:
    free = estimate(model, 8192, n_gpu_layers=4).devices[0].total_bytes
    told = numbers(plan(model, ram(PLENTY, free), type_k=8))
    assert (told["fits"], told["n_gpu_layers"], told["n_layers"]) == (True, 4, 9)
    assert (told["type_k"], told["type_v"]) == ("Q8_0", "F16")
    assert [place["name"] for place in told["places"]] == ["RAM", "GPU0"]
    parts = ("weights_bytes", "cache_bytes", "compute_bytes", "overhead_bytes")
    for place in told["places"]:
        assert sum(place[part] for part in parts) == place["needed_bytes"] > 0
    assert sum(place["needed_bytes"] for place in told["places"]) == told["total_bytes"]
    without = numbers(plan(model, ram(PLENTY, 0)))
    assert without["places"][1]["needed_bytes"] == 0


def test_the_table_names_places_and_what_fits(model: GGUFReader) -> None:
    free = estimate(model, 8192, n_gpu_layers=4).devices[0].total_bytes
    rows = list(lines(plan(model, ram(PLENTY, free), n_ctx=8192)))
    assert rows[3].split() == ["RAM", "GPU0"]
    assert rows[10].split() == ["fits", "yes", "yes"]
    assert len({len(row) for row in rows[3:11]}) == 1  # right-aligned
    assert rows[-2].endswith("8192 tokens, all it was trained for with 4 layers on the GPU")
    assert rows[-1].endswith("4 of 9 fit")
    refused = "\n".join(lines(plan(model, ram(PLENTY, free), n_ctx=8192, n_gpu_layers=-1)))
    assert "4 of 9 fit; 9 of 9 are shown" in refused
    assert "none: not even the smallest fits" in "\n".join(lines(plan(model, ram(0))))


def test_a_projector_counts_beside_the_first_layers(model: GGUFReader) -> None:
    eyes = Projector("m-mmproj.gguf", 5 * MIB)
    need = estimate(model, 8192).total.total_bytes
    assert plan(model, ram(need + 5 * MIB), n_ctx=8192, projector=eyes).fits
    assert not plan(model, ram(need + 5 * MIB - 1), n_ctx=8192, projector=eyes).fits
    alone = plan(model, ram(PLENTY), projector=eyes)
    assert numbers(alone)["places"][0]["projector_bytes"] == 5 * MIB
    assert numbers(alone)["projector"] == {"path": "m-mmproj.gguf", "n_bytes": 5 * MIB}
    rows = list(lines(alone))
    assert rows[8].split() == ["projector", "5.2", "MB"]
    assert rows[-1].endswith("the projector, for images, counts with its file's 5.2 MB in RAM")
    offloaded = plan(model, ram(PLENTY, 0, PLENTY), projector=eyes, n_gpu_layers=3)
    assert [share.projector_bytes for share in offloaded.shares] == [0, 0, 5 * MIB]
    assert offloaded.estimate.total.projector_bytes == 5 * MIB
    assert not any(row.startswith("projector") for row in lines(plan(model, ram(PLENTY))))


def test_notes_say_what_is_not_known(model: GGUFReader, tmp_path: Path) -> None:
    machine = Machine(Ram(PLENTY, PLENTY, "the memory limit of /jail"), (), "RAM alone")
    assert numbers(plan(model, machine))["notes"] == [
        "RAM alone",
        "what is free of RAM is set by the memory limit of /jail",
    ]
    assert list(lines(plan(model, machine)))[-3].endswith("not known")
    odd = write_shaped(tmp_path / "odd.gguf", "deepseek4", n_embd=64, n_ff=64, n_vocab=256)
    with GGUFReader(odd) as reader:
        assert "may need less" in numbers(plan(reader, ram(PLENTY)))["notes"][0]
        assert "it needs about " in refused(reader, ram(0))


def test_the_verdict_is_one_line(model: GGUFReader) -> None:
    need = estimate(model, 8192).total.total_bytes / 1e6
    assert verdict(plan(model, ram(10**9))) == (
        f"yes, with a context of 8192 tokens: {need:.1f} MB of RAM, and 1.0 GB are free"
    )
    assert verdict(plan(model, ram(20 * MIB))).startswith(
        f"no, with a context of 8192 tokens it needs {need:.1f} MB of RAM, and 21.0 MB are free; "
    )
