"""Whether a model fits this machine, with which context and how many layers on devices.

Owns what "fits" means and the search for the largest that does. Imports the standard library,
`llamalite.errors` and its siblings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from llamalite.errors import DoesNotFit
from llamalite.libs.transfer.progress import Say
from llamalite.libs.transfer.wording import size_text
from llamalite.models.fit.cache_size import ContextSettings
from llamalite.models.fit.estimate import Estimate, ModelBytes, Share
from llamalite.models.fit.machine import Machine
from llamalite.models.fit.model_keys import Header

DEFAULT_N_CTX = 8192
"""Tokens of a context where none is asked for and the model was trained for more."""

_STEP = 256  # contexts grow by this many tokens
_MOST_TOKENS = 1 << 24  # where a file doesn't say for how many it was trained


class Room(NamedTuple):
    """What one place has to hold, and has free."""

    name: str
    needed_bytes: int
    free_bytes: int | None

    @property
    def fits(self) -> bool:
        """Whether it does; True where nobody knows what is free."""
        return self.free_bytes is None or self.needed_bytes <= self.free_bytes


class Projector(NamedTuple):
    """The file that reads images for a model; its tensors are nearly all of it."""

    path: str
    n_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a model takes here, and what would fit.

    Attributes:
        path: the model, for messages.
        settings: the context's.
        n_gpu_layers: layers on devices: those asked for, else the most that fit; -1 is spelled out.
        n_layers: most that could be there: the blocks and the output.
        n_ctx_train: tokens the model was trained for, or 0.
        largest_n_ctx: tokens of the largest context that fits with so many layers on devices, at
            most `n_ctx_train` for each sequence; 0 = none does.
        largest_n_gpu_layers: most layers that fit on devices with this context; None = with no
            number of them it fits.
        projector: counted with the size of its file, beside the first layers; None = there is none.
    """

    path: str
    machine: Machine
    settings: ContextSettings
    estimate: Estimate
    n_gpu_layers: int
    n_layers: int
    n_ctx_train: int
    largest_n_ctx: int
    largest_n_gpu_layers: int | None
    projector: Projector | None = None

    @property
    def rooms(self) -> tuple[Room, ...]:
        """RAM, then each device."""
        return tuple(_rooms(self.estimate, self.machine))

    @property
    def shares(self) -> tuple[Share, ...]:
        """What lies in those places."""
        return _shares(self.estimate, self.machine)

    @property
    def fits(self) -> bool:
        """Whether every place holds its part."""
        return all(room.fits for room in self.rooms)


def plan(
    header: Header,
    machine: Machine,
    *,
    n_ctx: int | None = None,
    n_gpu_layers: int | None = None,
    projector: Projector | None = None,
    **settings: Any,
) -> Plan:
    """Say whether a model fits, and what would.

    Args:
        header: a GGUFReader, or whatever has its `path`, `metadata` and `tensors`.
        machine: what there is, as `this_machine` returns it.
        n_ctx: tokens of all sequences together; None = as trained, at most 8192 each; 0 = as
            trained.
        n_gpu_layers: layers on devices, counted from the end, the output among them; -1 = all,
            None = the most that fit. Without devices it does nothing.
        projector: what reads images for the model, to be counted, too.
        settings: other fields of ContextSettings: type_k, type_v, n_seq_max, n_ubatch, …

    Raises:
        BadField: the header doesn't tell a model's sizes.
        InvalidParameter: a setting is out of range.
    """
    model = ModelBytes(header, projector.n_bytes if projector else 0)
    context = ContextSettings(_STEP, **settings)
    trained = model.shape.n_ctx_train * context.n_seq_max
    context = replace(context, n_ctx=n_ctx or context_length(trained, n_ctx, context.n_seq_max))
    search = _Search(model, machine, context)
    most = trained or _MOST_TOKENS
    if n_gpu_layers is not None:
        chosen = search.spelled_out(n_gpu_layers)
    elif (found := search.layers(context.n_ctx)) is not None:
        chosen = found
    else:  # as with the largest context that fits at all
        n_largest = search.context(most, lambda n: search.layers(n) is not None)
        chosen = search.layers(n_largest) or 0 if n_largest else 0
    return Plan(
        path=header.path,
        machine=machine,
        settings=context,
        estimate=search.estimate(context.n_ctx, chosen),
        n_gpu_layers=chosen,
        n_layers=model.n_layers,
        n_ctx_train=model.shape.n_ctx_train,
        largest_n_ctx=search.context(most, partial(search.fits, n_gpu_layers=chosen)),
        largest_n_gpu_layers=search.layers(context.n_ctx),
        projector=projector,
    )


def context_length(trained: int, wanted: int | None = None, n_seq_max: int = 1) -> int:
    """Return the context that is made where `wanted` tokens are asked for.

    Args:
        trained: tokens the model was trained for, times `n_seq_max`; 0 = the file doesn't say.
        wanted: None = at most 8192 for each sequence; 0 = as trained.
        n_seq_max: sequences at once.
    """
    if wanted:
        return wanted
    default = DEFAULT_N_CTX * n_seq_max
    return min(trained or default, default) if wanted is None else trained or default


def check_fits(
    header: Header,
    *,
    machine: Machine,
    n_ctx: int | None = None,
    n_batch: int = 2048,
    n_ubatch: int = 512,
    n_gpu_layers: int | None = None,
    say: Say | None = None,
    **settings: Any,
) -> int:
    """Return the number of layers to put on devices, before a model is loaded.

    Args:
        header: as in `plan`.
        machine: what there is, as `this_machine` returns it.
        n_ctx: as in `plan`.
        n_batch: most tokens in one batch.
        n_ubatch: most tokens computed at once.
        n_gpu_layers: as in `plan`.
        say: takes a line where not all layers fit on devices.
        settings: as in `plan`.

    Raises:
        DoesNotFit: it doesn't fit, with what is needed and what is free.
        BadField: the header doesn't tell a model's sizes.
    """
    found = plan(
        header,
        machine,
        n_ctx=n_ctx,
        n_gpu_layers=n_gpu_layers,
        n_ubatch=min(n_ubatch, n_batch),
        **settings,
    )
    if not found.fits:
        raise DoesNotFit(refusal(found))
    if n_gpu_layers is None and machine.devices and found.n_gpu_layers < found.n_layers and say:
        free = ", ".join(f"{d.name} has {size_text(d.free_bytes)} free" for d in machine.devices)
        say(
            f"{found.n_gpu_layers} of {found.n_layers} layers fit on the GPU ({free}): the others "
            f"compute on the CPU"
        )
    return found.n_gpu_layers


def refusal(found: Plan) -> str:
    """Say why a plan doesn't fit, and what would."""
    full = [room for room in found.rooms if not room.fits]
    lacks = " and ".join(
        f"{size_text(room.needed_bytes)} of {room.name} ({size_text(room.free_bytes or 0)} free)"
        for room in full
    )
    if full[0].name == "RAM" and found.machine.ram.limit:
        lacks += f", by {found.machine.ram.limit}"
    ways = []
    if 0 < found.largest_n_ctx < found.settings.n_ctx:
        ways.append(f"--ctx-size {found.largest_n_ctx}")
    if found.largest_n_gpu_layers is not None:
        ways.append(f"--gpu-layers {found.largest_n_gpu_layers}")
    hint = f"{' or '.join(ways)} fits" if ways else "a smaller model or quantization may fit"
    return (
        f"{found.path} doesn't fit: with a context of {found.settings.n_ctx} tokens it needs "
        f"{'about ' if found.estimate.is_approximate else ''}{lacks}: {hint}, and 'llamalite run "
        f"--force' loads it all the same"
    )


def _rooms(found: Estimate, machine: Machine) -> Iterator[Room]:
    in_ram, *on_devices = (share.total_bytes for share in _shares(found, machine))
    pairs = list(zip(on_devices, machine.devices, strict=True))
    in_ram += sum(n_bytes for n_bytes, device in pairs if device.shares_ram)
    yield Room("RAM", in_ram, machine.ram.free_bytes)
    for n_bytes, device in pairs:
        yield Room(device.name, n_bytes, device.free_bytes)


def _shares(found: Estimate, machine: Machine) -> tuple[Share, ...]:
    """Return what lies in RAM and on each device, empty shares included."""
    return (found.host, *(found.devices or (Share(),) * len(machine.devices)))


class _Search:
    """What fits of a model on a machine, with contexts like one."""

    def __init__(self, model: ModelBytes, machine: Machine, settings: ContextSettings) -> None:
        self._model, self._machine, self._settings = model, machine, settings
        free = [max(device.free_bytes, 0) for device in machine.devices]
        self._split = free if any(free) else [1] * max(len(free), 1)

    def spelled_out(self, n_gpu_layers: int) -> int:
        if not self._machine.devices:
            return 0
        return (
            min(n_gpu_layers, self._model.n_layers) if n_gpu_layers >= 0 else self._model.n_layers
        )

    def estimate(self, n_ctx: int, n_gpu_layers: int) -> Estimate:
        context = self._model.with_context(replace(self._settings, n_ctx=n_ctx))
        return context.placed(n_gpu_layers, self._split)

    def fits(self, n_ctx: int, n_gpu_layers: int) -> bool:
        return all(room.fits for room in _rooms(self.estimate(n_ctx, n_gpu_layers), self._machine))

    def layers(self, n_ctx: int) -> int | None:
        """Return the most layers that fit on devices, or None where no number of them fits."""
        context = self._model.with_context(replace(self._settings, n_ctx=n_ctx))
        for n_gpu_layers in range(self.spelled_out(-1), -1, -1):
            found = context.placed(n_gpu_layers, self._split)
            if all(room.fits for room in _rooms(found, self._machine)):
                return n_gpu_layers
        return None

    def context(self, most: int, fits: Callable[[int], bool]) -> int:
        """Return the largest context up to `most` that fits, in whole steps where it can."""
        low, high = 0, -(-most // _STEP)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle * _STEP) else (low, middle - 1)
        return min(low * _STEP, most)
