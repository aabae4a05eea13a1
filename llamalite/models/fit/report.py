"""What a plan says to people, and to programs as JSON.

Imports the standard library, `llamalite.gguf`'s constants and the sibling `plan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llamalite.gguf.constants import GGMLType
from llamalite.libs.transfer.wording import size_text
from llamalite.models.fit.plan import Plan

_PARTS = {
    "weights": "weights_bytes",
    "cache": "cache_bytes",
    "compute buffers": "compute_bytes",
    "vocabulary, code": "overhead_bytes",
    "projector": "projector_bytes",
}


def verdict(found: Plan) -> str:
    """Say in one line whether a model fits."""
    rooms = found.rooms
    free = rooms[0].free_bytes
    tokens = f"a context of {found.settings.n_ctx} tokens"
    needs = " and ".join(
        f"{size_text(room.needed_bytes)} of {room.name}" for room in rooms if room.needed_bytes
    )
    if free is None:
        return f"with {tokens} it needs {needs}; how much is free isn't known"
    there = " and ".join(size_text(room.free_bytes or 0) for room in rooms if room.needed_bytes)
    if found.fits:
        return f"yes, with {tokens}: {needs}, and {there} are free"
    less = (
        f"; {found.largest_n_ctx} tokens would fit"
        if 0 < found.largest_n_ctx < found.settings.n_ctx
        else ""
    )
    return f"no, with {tokens} it needs {needs}, and {there} are free{less}"


def lines(found: Plan) -> Iterator[str]:
    """Yield a table of what goes where, and what is the largest that fits."""
    yield f"{'model':<17} {found.path}"
    yield f"{'context':<17} {_context(found)}"
    yield ""
    yield from _columns([["", *(room.name for room in found.rooms)], *_rows(found)])
    yield ""
    yield f"{'largest context':<17} {_largest_context(found)}"
    yield f"{'GPU layers':<17} {_layers(found)}"
    for note in _notes(found):
        yield f"{'note':<17} {note}"


def to_dict(found: Plan) -> dict[str, Any]:
    """Return all of a plan as JSON has it; sizes in bytes."""
    places = []
    for room, share in zip(found.rooms, found.shares, strict=True):
        parts = {name: getattr(share, name) for name in _PARTS.values()}
        places.append(
            {
                "name": room.name,
                **parts,
                "needed_bytes": room.needed_bytes,
                "free_bytes": room.free_bytes,
                "fits": room.fits,
            }
        )
    return {
        "model": found.path,
        "fits": found.fits,
        "n_ctx": found.settings.n_ctx,
        "n_ctx_train": found.n_ctx_train or None,
        "n_seq_max": found.settings.n_seq_max,
        "type_k": GGMLType(found.settings.type_k).name,
        "type_v": GGMLType(found.settings.type_v).name,
        "n_gpu_layers": found.n_gpu_layers,
        "n_layers": found.n_layers,
        "largest_n_ctx": found.largest_n_ctx,
        "largest_n_gpu_layers": found.largest_n_gpu_layers,
        "total_bytes": found.estimate.total.total_bytes,
        "places": places,
        "projector": found.projector._asdict() if found.projector else None,
        "is_approximate": found.estimate.is_approximate,
        "notes": list(_notes(found)),
    }


def _context(found: Plan) -> str:
    settings = found.settings
    types = [GGMLType(kind).name.lower() for kind in (settings.type_k, settings.type_v)]
    kinds = types[0] if types[0] == types[1] else f"{types[0]} for keys, {types[1]} for values"
    shared = f" for {settings.n_seq_max} sequences" if settings.n_seq_max > 1 else ""
    trained = f" (trained for {found.n_ctx_train})" if found.n_ctx_train else ""
    return f"{settings.n_ctx} tokens{shared}{trained}, cache in {kinds}"


def _rows(found: Plan) -> Iterator[list[str]]:
    shares, rooms = found.shares, found.rooms
    for name, attribute in _PARTS.items():
        if name == "projector" and found.projector is None:
            continue
        yield [name, *(size_text(getattr(share, attribute)) for share in shares)]
    yield ["needed", *(size_text(room.needed_bytes) for room in rooms)]
    frees = (room.free_bytes for room in rooms)
    yield ["free", *("unknown" if free is None else size_text(free) for free in frees)]
    yield ["fits", *("yes" if room.fits else "no" for room in rooms)]


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        yield "  ".join([name.ljust(17), *padded]).rstrip()


def _largest_context(found: Plan) -> str:
    if not found.largest_n_ctx:
        return "none: not even the smallest fits"
    end = found.n_ctx_train * found.settings.n_seq_max
    why = ", all it was trained for" if found.largest_n_ctx == end else ""
    layers = f" with {found.n_gpu_layers} layers on the GPU" if found.n_gpu_layers else ""
    return f"{found.largest_n_ctx} tokens{why}{layers}"


def _layers(found: Plan) -> str:
    if not found.machine.devices:
        return "not known" if found.machine.note else "none: libllama sees no GPU here"
    most, shown = found.largest_n_gpu_layers, f"{found.n_gpu_layers} of {found.n_layers}"
    if most is None:
        return f"no number of them makes it fit; {shown} are shown"
    known = f"{'all ' if most == found.n_layers else ''}{most} of {found.n_layers} fit"
    return known if most == found.n_gpu_layers else f"{known}; {shown} are shown"


def _notes(found: Plan) -> Iterator[str]:
    if found.machine.note:
        yield found.machine.note
    if found.machine.ram.limit:
        yield f"what is free of RAM is set by {found.machine.ram.limit}"
    for device in found.machine.devices:
        if device.shares_ram and found.n_gpu_layers:
            yield f"{device.name} has no memory of its own: what lies there is needed of RAM"
    if found.projector:
        both = zip(found.rooms, found.shares, strict=True)
        where = next((room.name for room, share in both if share.projector_bytes), "RAM")
        size = size_text(found.projector.n_bytes)
        yield f"the projector, for images, counts with its file's {size} in {where}"
    if found.estimate.is_approximate:
        yield "this architecture's cache is taken for a plain one: it may need less"
