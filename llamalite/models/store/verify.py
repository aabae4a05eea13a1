"""Models' files against the digests they came with.

Owns where the digest of a file is known from: the name of its blob in the Hub's cache, or what was
recorded when it came. May import `hub`, `libs` and `errors`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llamalite.errors import ModelError, ModelNotFound
from llamalite.libs.transfer.expected import Expected
from llamalite.models.store.digests import file_digest
from llamalite.models.store.finding import find_model, stands_for
from llamalite.models.store.installed import all_names, survey
from llamalite.models.store.model import InstalledModel
from llamalite.models.store.records import read_record, update_record

State = Literal["right", "wrong", "unknown"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_OID = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Verdict:
    """What the digest of one file says.

    Attributes:
        name: of the model; of a damaged one, its file's.
        state: "unknown" where no digest of it is known; `found` is then remembered as its digest.
        expected: the digest it should have, or None.
        found: the digest it has.
    """

    name: str
    path: Path
    state: State
    expected: str | None
    found: str


def verify_models(names: Sequence[str], say: Callable[[str], None]) -> Iterator[Verdict]:
    """Yield a verdict for each file of these models, or of all there are, as it was computed.

    Of what is too damaged to be a model, only files whose digest is known to be wrong are told.

    Args:
        names: any names of models here; empty = all models.
        say: takes a line about each file that is left out.

    Raises:
        ModelNotFound: nothing here has one of the names; no file was read then.
        AmbiguousFile: several models begin with it.
        ModelError: a file can't be read, or no digest remembered.
    """
    models, damaged = survey(say=say)
    chosen = [_named(name, models) for name in names] or models
    for model in chosen:
        yield from _verify(model.name, model.paths, model.projector)
    for candidate in [] if names else damaged:
        name = str(candidate.paths[0])
        yield from (v for v in _verify(name, candidate.paths, None) if v.state == "wrong")


def _named(name: str, models: Sequence[InstalledModel]) -> InstalledModel:
    found = stands_for(name, all_names(), models) or find_model(name, models)
    if found is None:
        raise ModelNotFound(f"no model here is called '{name}': see 'llamalite list'")
    return found


def _verify(name: str, paths: tuple[Path, ...], projector: Path | None) -> Iterator[Verdict]:
    record = read_record(paths[0])
    recorded = record.sha256.split("+") if record and record.sha256 else []
    if len(recorded) != len(paths):
        recorded = []
    found = []
    for number, path in enumerate(paths):
        verdict = _verdict(name, path, recorded[number] if recorded else None)
        found.append(verdict)
        yield verdict
    if all(verdict.state == "unknown" for verdict in found):
        update_record(paths[0], sha256="+".join(verdict.found for verdict in found))
    if projector is not None:
        record = read_record(projector)
        verdict = _verdict(name, projector, record.sha256 if record else None)
        if verdict.state == "unknown":
            update_record(projector, sha256=verdict.found)
        yield verdict


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


def _verdict(name: str, path: Path, recorded: str | None) -> Verdict:
    try:
        expected = blob_digest(path) or Expected(sha256=recorded)
        found = file_digest(path, expected)
    except OSError as error:
        raise ModelError(
            f"{path} can't be read ({error.strerror or error}): check the disk and the file's "
            f"permissions"
        ) from None
    if not expected.digest:
        return Verdict(name, path, "unknown", None, found)
    state: State = "right" if found == expected.digest else "wrong"
    return Verdict(name, path, state, expected.digest, found)
