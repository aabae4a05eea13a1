"""Models' files against the digests they came with.

Owns where the digest of a file is known from: the name of its blob in the Hub's cache, or what was
recorded when it came. May import `hub`, `libs` and `errors`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from llamalite.errors import LlamaliteError, ModelNotFound
from llamalite.libs.transfer.expected import Expected
from llamalite.libs.transfer.progress import Say, say_nothing
from llamalite.models.names.safety import shown
from llamalite.models.store.digests import file_digest
from llamalite.models.store.finding import find_model, stands_for
from llamalite.models.store.installed import all_names, survey
from llamalite.models.store.model import InstalledModel
from llamalite.models.store.records import read_record, update_record

State = Literal["right", "wrong", "unknown", "unreadable"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_OID = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Verdict:
    """What the digest of one file says.

    Attributes:
        model: whose file it is.
        state: "unknown" where no digest of it is known; `found` is then remembered as its digest.
        expected: the digest it should have, or None.
        found: the digest it has; None where it can't be read.
        why: what hinders reading, or "".
    """

    model: InstalledModel
    path: Path
    state: State
    expected: str | None = None
    found: str | None = None
    why: str = ""


def verify_models(names: Sequence[str], say: Say) -> Iterator[Verdict]:
    """Yield a verdict for each file of these models, or of all there are, as it was computed.

    Of what is too damaged to be a model, only files whose digest is known to be wrong are told.

    Args:
        names: any names of models here; empty = all models.
        say: takes a line about each file that is left out, and each digest that can't be
            remembered.

    Raises:
        ModelNotFound: nothing here has one of the names; no file was read then.
        AmbiguousFile: several models begin with it.
    """
    models, damaged = survey(say=say)
    chosen = [_named(name, models) for name in names] or models
    for model in chosen:
        yield from _verify(model, say)
    for model in [] if names else damaged:
        yield from (v for v in _verify(replace(model, projector=None), None) if v.state == "wrong")


def _named(name: str, models: Sequence[InstalledModel]) -> InstalledModel:
    found = stands_for(name, all_names(say_nothing), models) or find_model(name, models)
    if found is None:
        raise ModelNotFound(f"no model here is called {shown(name)}: see 'llamalite list'")
    return found


def _verify(model: InstalledModel, say: Say | None) -> Iterator[Verdict]:
    """Yield verdicts on a model's files, and remember the digests that were not known.

    Args:
        model: one of those here.
        say: takes a line where they can't be remembered; None = they are not to be.
    """
    for paths in (model.paths, [model.projector] if model.projector else []):
        found = []
        for path, recorded in zip(paths, _recorded(paths), strict=True):
            found.append(_verdict(model, path, recorded))
            yield found[-1]
        digests = [verdict.found for verdict in found if verdict.state == "unknown"]
        if say is not None and paths and len(digests) == len(paths):
            try:
                update_record(paths[0], sha256="+".join(filter(None, digests)))
            except LlamaliteError as error:
                say(f"the digest of {paths[0]} is not remembered: {error}")


def _recorded(paths: Sequence[Path]) -> list[str | None]:
    """Return the digest that is remembered of each of a model's parts, or None for each."""
    record = read_record(paths[0]) if paths else None
    digests = record.sha256.split("+") if record and record.sha256 else []
    return [*digests] if len(digests) == len(paths) else [None] * len(paths)


def blob_digest(path: Path) -> Expected | None:
    """Return what the name of a file's blob in the Hub's cache says about it, or None."""
    if not path.is_symlink():
        return None
    blob = os.path.basename(os.readlink(path))
    if _SHA256.fullmatch(blob):
        return Expected(sha256=blob)
    if _GIT_OID.fullmatch(blob):
        return Expected(n_bytes=path.stat().st_size, git_oid=blob)
    return None


def _verdict(model: InstalledModel, path: Path, recorded: str | None) -> Verdict:
    expected = Expected(sha256=recorded)
    try:
        expected = blob_digest(path) or expected
        found = file_digest(path, expected)
    except OSError as error:
        why = error.strerror or str(error)
        return Verdict(model, path, "unreadable", expected.digest or None, why=why)
    if not expected.digest:
        return Verdict(model, path, "unknown", None, found)
    state: State = "right" if found == expected.digest else "wrong"
    return Verdict(model, path, state, expected.digest, found)
