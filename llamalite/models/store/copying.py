"""A second name: of a model's file, a hard link in `models_dir`; of an alias or preset, a copy.

May import `names`, `config` and `errors`.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from llamalite import config
from llamalite.errors import ModelError, ModelNotFound
from llamalite.models.names.safety import check_file_name, shown
from llamalite.models.store import bounds
from llamalite.models.store.atomic import locked
from llamalite.models.store.finding import find_at, find_model
from llamalite.models.store.importing import projector_name
from llamalite.models.store.installed import installed_models
from llamalite.models.store.model import InstalledModel, suffix_of
from llamalite.models.store.named import check_free, read_named, write_named
from llamalite.models.store.records import read_record, update_record

_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


def copy_model(name: str, new: str) -> str:
    """Give a model, an alias or a preset a second name, and say in a sentence what was done.

    Args:
        name: of what is here; a model's may be cut short if only one begins so.
        new: the name to give.

    Raises:
        ModelNotFound: nothing here has the name.
        AmbiguousFile: several models begin with it.
        InvalidParameter: the new name can't be one, or is in use.
        ModelError: the new name can't be written.
    """
    models = installed_models()
    check_free(new, (model.name for model in models))
    if preset := read_named(name):
        write_named(new, preset, replace=False)
        return f"{new} is a copy of {name}"
    model = find_model(name, models)
    if model is None:
        raise ModelNotFound(f"no model here is called {shown(name)}: see 'llamalite list'")
    targets = _targets(model, new)
    for target in targets.values():
        if os.path.lexists(target):
            raise ModelError(f"{target} is another model's file: choose another name")
    if failure := _link(targets):
        if failure.errno not in _NO_LINKS:
            raise ModelError(f"{new} can't be made: {failure.strerror or failure}")
        write_named(new, config.ModelConfig(model=model.name), replace=False)
        return (
            f"{new} is an alias of {model.name}, because {config.models_dir()} can't share its "
            f"file ({failure.strerror})"
        )
    first, known = targets[model.path], read_record(model.path)
    update_record(
        first,
        source=model.source,
        origin=model.origin,
        sha256=model.sha256 or (known.sha256 if known else None),
        added_at=time.time(),
        removed=False,
    )
    copy = find_at(first, installed_models())
    return f"{copy.name if copy else new} shares the file of {model.name}"


def _targets(model: InstalledModel, new: str) -> dict[Path, Path]:
    folder = config.models_dir()
    names = {path: check_file_name(new + suffix_of(path.name), "cp") for path in model.paths}
    if model.projector is not None:
        names[model.projector] = projector_name(new + ".gguf", f"{new}-mmproj.gguf")
    return {path: folder / name for path, name in names.items()}


def _link(targets: dict[Path, Path]) -> OSError | None:
    """Make hard links, all or none; return why there are none."""
    made: list[Path] = []
    with locked(config.models_dir()):
        try:
            for source, target in targets.items():
                os.link(os.path.realpath(source), target)
                made.append(target)
        except OSError as error:
            for target in made:
                bounds.unlink(target)
            return error
    return None
