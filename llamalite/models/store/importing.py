"""How a GGUF file that lies elsewhere becomes a model of `models_dir`: copied or linked.

Owns that it appears there whole or not at all, and in nobody's place. May import `names`, `gguf`,
`config` and `errors`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from llamalite import config
from llamalite.errors import InvalidParameter, ModelError, ModelNotFound
from llamalite.gguf import GGUFReader
from llamalite.libs.transfer.progress import Say, say_nothing
from llamalite.libs.transfer.wording import one_line, size_text
from llamalite.models.names.quantization import bare_name, is_projector
from llamalite.models.names.reference import shard_names
from llamalite.models.names.repository import RepoFile, group_models
from llamalite.models.names.safety import check_file_name
from llamalite.models.store import bounds
from llamalite.models.store.atomic import locked
from llamalite.models.store.digests import copy_file, file_digest
from llamalite.models.store.finding import find_at
from llamalite.models.store.headers import check_type
from llamalite.models.store.in_use import hold
from llamalite.models.store.installed import installed_models, own_name
from llamalite.models.store.model import InstalledModel, stem_of
from llamalite.models.store.named import check_free, same_name, write_named
from llamalite.models.store.records import update_record

Mode = Literal["copy", "link"]
STAGING = ".import-"


class _Occupied(ModelError):
    """Something else has a model's place."""


def import_model(
    path: str | os.PathLike[str],
    alias: str | None = None,
    mode: Mode = "copy",
    say: Say | None = None,
) -> InstalledModel:
    """Take a model into `models_dir`, with all its parts and the projector beside it.

    Args:
        path: the GGUF file; of a split model, any part.
        alias: a name to give it, too.
        mode: "copy" leaves the source alone; "link" puts a symbolic link to it there.
        say: takes a line about what came along, or was there already.

    Raises:
        ModelNotFound: the file, or a part, isn't there.
        GGUFError: it is no whole GGUF model.
        InvalidParameter: the alias can't be used, or the file's name can't be taken over.
        ModelError: another model has its place, there is no room, or it can't be written.
    """
    say = say or say_nothing
    parts = _parts(os.fspath(path))
    _check_model(parts[0])
    before = installed_models()
    found = find_at(parts[0], before)
    if alias is not None:
        check_free(alias, (model.name for model in before))
        _check_other(alias, parts[0], found)
    found = found or find_at(_take_in(parts, mode, say), installed_models())
    if found is None:
        raise ModelNotFound(f"{parts[0].name} was removed while it was imported: import it again")
    if alias is not None:
        write_named(alias, config.ModelConfig(model=found.name), replace=False)
    return found


def _parts(text: str) -> list[Path]:
    try:
        path = Path(os.path.abspath(os.path.expanduser(text)))
    except ValueError:  # a NUL character after `~`
        path = Path(text)
    parts = [path.parent / name for name in shard_names(path.name)]
    missing = [part for part in parts if not os.path.isfile(part)]
    if not missing:
        return parts
    if len(parts) > 1 and path not in missing:
        raise ModelNotFound(
            f"{path} is one of the {len(parts)} files of a split model, and {missing[0].name} is "
            f"not beside it ({len(missing)} missing in all)"
        )
    what = "a folder" if os.path.isdir(path) else "no file there"
    raise ModelNotFound(
        f"{one_line(text)} can't be imported, it is {what}: give the path of a GGUF file"
    )


def _check_model(path: Path) -> None:
    if is_projector(path.name):
        raise InvalidParameter(
            f"{path} is a projector, no model: import the model beside it, and it comes along"
        )
    with GGUFReader(path) as reader:
        check_type(path, reader.summary.type, reader.summary.architecture)
    check_file_name(_target_name(path), str(path.parent))


def _check_other(alias: str, path: Path, found: InstalledModel | None) -> None:
    """Refuse an alias that the model answers to anyway: it would stand for itself."""
    target = _target_name(path)
    own = (target, stem_of(target), own_name(target, path.stat().st_size))
    if any(same_name(alias, name) for name in (found.spellings() if found else own)):
        raise InvalidParameter(
            f"'{alias}' is what the model is called anyway: leave the alias away, or choose "
            f"another",
            param="alias",
        )


def _target_name(path: Path) -> str:
    """Return what a model's file is called in `models_dir`, where only these count."""
    return path.name if path.name.lower().endswith(".gguf") else f"{path.name}.gguf"


def _targets(parts: list[Path], say: Say) -> dict[Path, Path]:
    """Return where each file goes, the projector's last."""
    folder = config.models_dir()
    targets = {part: folder / _target_name(part) for part in parts}
    if projector := _projector(parts[0]):
        say(f"{projector.name} comes along")
        targets[projector] = folder / projector_name(parts[0].name, projector.name)
    return targets


def projector_name(model: str, projector: str) -> str:
    """Return a projector's file name in `models_dir`, where it must tell its model."""
    own = bare_name(projector) == bare_name(model)
    return projector if own else f"{stem_of(model)}-mmproj.gguf"


def _projector(model: Path) -> Path | None:
    """Return the projector that lies beside a model and can't belong to another there."""
    files = [path.name for path in model.parent.iterdir() if path.is_file()]
    models = group_models(RepoFile(name) for name in files)
    own = next((m for m in models if model.name in m.parts), None)
    if own is None or own.projector is None:
        return None
    whose, others = bare_name(own.projector), {bare_name(m.file) for m in models}
    belongs = whose == bare_name(model.name) or (not whose and len(others) == 1)
    return model.with_name(own.projector) if belongs else None


def _take_in(parts: list[Path], mode: Mode, say: Say) -> Path:
    """Put a model's files into `models_dir`, remember where they came from; return the first."""
    targets = _targets(parts, say)
    first = targets[parts[0]]
    try:
        try:
            digests = [] if _are_same(targets) else _place(targets, mode)
        except _Occupied:
            if not _are_same(targets):  # another process was quicker
                raise
            digests = []
    except OSError as error:
        raise ModelError(
            f"{error.filename or first.parent} can't be read or written "
            f"({error.strerror or error}): make room or give the right to do so, or set "
            f"LLAMALITE_MODELS_DIR to another folder"
        ) from None
    if not digests:
        say(f"{first} is the same file: nothing was copied")
        update_record(first, removed=False)
        return first
    update_record(
        first,
        source="import" if mode == "copy" else "link",
        origin=str(parts[0]),
        sha256="+".join(digests[: len(parts)]) if mode == "copy" else None,
        added_at=time.time(),
        removed=False,
    )
    return first


def _place(targets: Mapping[Path, Path], mode: Mode) -> list[str]:
    """Put files in their places, all at once, and return their digests, "" of those linked."""
    folder = config.models_dir()
    _check_vacant(targets.values())
    folder.mkdir(parents=True, exist_ok=True)
    if mode == "copy":
        _check_room(folder, sum(source.stat().st_size for source in targets))
    digests = []
    with _staging(folder) as staging:
        for source, target in targets.items():
            if mode == "copy":
                digests.append(copy_file(source, staging / target.name))
            else:
                _link(source, staging / target.name)
                digests.append("")
        with locked(folder):
            _check_vacant(targets.values())
            for target in targets.values():
                os.rename(staging / target.name, target)
    return digests


def _are_same(targets: Mapping[Path, Path]) -> bool:
    return all(_is_same(source, target) for source, target in targets.items())


def _is_same(source: Path, target: Path) -> bool:
    """Say whether what has the target's place is the source, or has the same content."""
    if not target.is_file():
        return False
    if os.path.samefile(source, target):
        return True
    return source.stat().st_size == target.stat().st_size and file_digest(source) == file_digest(
        target
    )


def _check_vacant(targets: Iterable[Path]) -> None:
    for target in targets:
        if os.path.lexists(target):
            raise _Occupied(
                f"{target} is another model's file: rename yours, or remove that one with "
                f"'llamalite rm {stem_of(target.name)}'"
            )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"{folder} has {size_text(free)} free and {size_text(needed)} are needed: make "
            f"room, import with --link, or set LLAMALITE_MODELS_DIR to another folder"
        )


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """Lend a folder that is gone afterwards; while it is lent, `prune` leaves it alone."""
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=folder))
    try:
        with hold([staging]):
            yield staging
    finally:
        with suppress(OSError):
            bounds.rmtree(staging)


def _link(source: Path, target: Path) -> None:
    try:
        os.symlink(source, target)
    except OSError as error:
        raise ModelError(
            f"no link to {source} can be made in {config.models_dir()} "
            f"({error.strerror or error}): import it with --copy"
        ) from None
