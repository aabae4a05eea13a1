"""What becomes of one wish: a plan that finds out what is to come, and then lets it come.

Owns which plan a name gets, the plans for what is here, for addresses and for files, and what is
remembered. May import `locate`, `store`, `url`, `gguf`, `names`, `config` and `errors`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from llamalite import config
from llamalite.errors import InvalidParameter, ModelError, ModelNotFound, Offline
from llamalite.gguf import GGUFReader
from llamalite.libs.transfer.wording import without_login
from llamalite.models.locate import HubTarget, locate
from llamalite.models.locate.addresses import local_path
from llamalite.models.names.reference import shard_names
from llamalite.models.names.safety import check_file_name, shown
from llamalite.models.pull.wish import Pulled, Wish
from llamalite.models.store.finding import find_at
from llamalite.models.store.installed import installed_models
from llamalite.models.store.records import read_record, update_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llamalite.models.pull.report import Watch


class Plan:
    """How one wish is fulfilled.

    Attributes:
        files: what will come, with sizes as far as they are known; set by `prepare`.
    """

    def __init__(self, wish: Wish, watch: Watch) -> None:
        self.wish, self.watch = wish, watch
        self.files: list[tuple[str, int | None]] = []

    def prepare(self) -> None:
        """Find out what is to come."""

    def carry_out(self) -> Pulled:
        """Let it come, and remember where it came from."""
        raise NotImplementedError

    def pulled(self, paths: Sequence[Path], source: str, origin: str) -> Pulled:
        """Say what is here now, in the store's words where it knows the model.

        Raises:
            GGUFError: it is no model.
        """
        record = read_record(paths[0])
        if record is not None and record.removed:
            self._update(paths[0], removed=False)  # whoever pulls it wants its own name back
        found = find_at(paths[0], installed_models())
        if found is not None:
            result = Pulled(found.name, found.paths, found.source, found.origin, found.n_bytes)
            result = replace(result, projector=found.projector)
        else:
            GGUFReader(paths[0]).close()
            n_bytes = sum(path.stat().st_size for path in paths)
            result = Pulled(self.wish.name, tuple(paths), source, origin, n_bytes)
        return replace(result, notes=tuple(self.watch.notes))

    def remember(self, path: Path, source: str, origin: str, sha256: str | None) -> None:
        """Write down where a model came from; say so where that can't be written."""
        changes = {"source": source, "origin": origin, "sha256": sha256, "removed": False}
        self._update(path, **changes, added_at=time.time())

    def _update(self, path: Path, **changes: Any) -> None:
        try:
            update_record(path, **changes)
        except ModelError as error:  # the model is here all the same
            self.watch.say(f"where {path.name} came from isn't remembered: {error}")

    def here(self, path: Path) -> Pulled:
        """Say what was here before; `path` is its only file or its first part."""
        paths = [path.with_name(name) for name in shard_names(path.name)]
        return replace(self.pulled(paths, "", ""), was_here=True)


class Here(Plan):
    """The model is here, and there is nowhere else to look for it."""

    def __init__(self, wish: Wish, watch: Watch, path: Path) -> None:
        super().__init__(wish, watch)
        self._path = path

    def carry_out(self) -> Pulled:
        """Say what is here."""
        return self.here(self._path)


class FromUrl(Plan):
    """A web server has the file."""

    def __init__(self, wish: Wish, watch: Watch, url: str) -> None:
        super().__init__(wish, watch)
        parts = urlsplit(url)
        self._url = url
        self._urls = [urlunsplit(parts._replace(path=path)) for path in shard_names(parts.path)]
        self._was_here = False

    def prepare(self) -> None:
        """Refuse what can't be had."""
        from llamalite.models.url import url_path

        paths = [config.models_dir() / url_path(url) for url in self._urls]
        self._was_here = not self.wish.force and all(path.is_file() for path in paths)
        if config.is_offline() and not self._was_here:
            raise Offline(
                f"LLAMALITE_OFFLINE or HF_HUB_OFFLINE forbids fetching "
                f"{without_login(self._url)}: unset it, or give the path of a GGUF file"
            )
        self.files = [(without_login(url), None) for url in self._urls]

    def carry_out(self) -> Pulled:
        """Fetch all parts."""
        shown = without_login(self._url)
        if not self._was_here:
            self.watch.say(f"Fetching {shown}")
        paths = [self._fetch(url) for url in self._urls]
        if not self._was_here:
            self.remember(paths[0], "url", shown, None)
        return replace(self.pulled(paths, "url", shown), was_here=self._was_here)

    def _fetch(self, url: str) -> Path:
        from llamalite.models.url import download_url

        label = without_login(url)
        with self.watch.transfer(label, None) as progress:
            path = download_url(url, config.models_dir(), progress, force=self.wish.force)
        n_bytes = path.stat().st_size
        self.watch.expect([(label, n_bytes)])
        self.watch.at(label, n_bytes)
        return path


class FromFile(Plan):
    """The file lies on this computer and is to be copied into the store."""

    def __init__(self, wish: Wish, watch: Watch, path: Path) -> None:
        super().__init__(wish, watch)
        self._path = path

    def carry_out(self) -> Pulled:
        """Copy it."""
        from llamalite.models.store.importing import import_model

        before = {model.path for model in installed_models()}
        self.watch.say(f"Copying {self._path}")
        found = import_model(self._path, say=self.watch.say)
        done = self.pulled(found.paths, found.source, found.origin)
        return replace(done, was_here=found.path in before)


def plan_for(wish: Wish, watch: Watch) -> Plan:
    """Return the plan for a wish, which has not yet asked anybody.

    Raises:
        ModelNotFound: nothing answers to the name.
        InvalidParameter: the wish contradicts itself.
    """
    located = locate(wish.name)
    target = located.target
    if located.begins:
        raise ModelNotFound(
            f"no model is called {shown(located.names[-1])}: did you mean {located.begins}, "
            f"which is here?"
        )
    if located.note and target is None:  # the others choose anew, from what there is to be had
        watch.say(located.note)
    if isinstance(target, HubTarget):
        from llamalite.models.pull.hub import FromHub, Pinned

        narrowed = _narrowed(wish, target)
        if narrowed.entry is not None and narrowed.entry.is_pinned:
            return Pinned(wish, watch, narrowed)
        return FromHub(wish, watch, narrowed)
    if wish.file is not None or wish.revision is not None:
        given = "--file" if wish.file is not None else "--revision"
        raise InvalidParameter(
            f"{given} goes with a repository on the Hub, and {wish.name} is none", param=given
        )
    if target is None:
        assert located.path is not None
        return Here(wish, watch, located.path)
    if path := local_path(target.url):
        return FromFile(wish, watch, path)
    return FromUrl(wish, watch, target.url)


def _narrowed(wish: Wish, target: HubTarget) -> HubTarget:
    """Return the target with what the wish adds to its name."""
    for name, added, said in (
        ("--file", wish.file, None if target.entry else target.file or target.quant),
        ("--revision", wish.revision, target.revision),
    ):
        if added is not None and said is not None and added != said:
            raise InvalidParameter(
                f"{name} {added} contradicts {wish.name}: leave one of them out", param=name
            )
    if wish.file is not None:
        check_file_name(wish.file, target.repo)
        target = replace(target, file=wish.file, quant=None, entry=None)
    if wish.revision is not None:
        check_file_name(wish.revision, f"{target.repo}, --revision")
        target = replace(target, revision=wish.revision, entry=None)
    return target
