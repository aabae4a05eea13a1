"""From nothing to an opened libllama: found or fetched, tested once on this machine, opened.

Owns the order of these steps. Imports `llamalite.libs`, `ffi`, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llamalite import config
from llamalite.core.trial import is_wanted, known_trial, try_library
from llamalite.errors import LibraryError
from llamalite.ffi.library import Library, open_library, opened_library
from llamalite.ffi.variants import NO_REMEDIES, Remedies
from llamalite.libs.files.folder import LibraryFiles
from llamalite.libs.find import find_library
from llamalite.libs.transfer.download import say_on_stderr

Say = Callable[[str], None]


def ready_library(model: Path | None = None, say: Say | None = None) -> Library:
    """Return libllama, opened: fetched if there is none, tested if it is new on this machine.

    Args:
        model: the model it is wanted for, which the test then tries too.
        say: takes lines for a person; None for stderr, with a bar on a terminal.

    Raises:
        LibraryError: none can be found, loaded or used here.
        Offline, DownloadError: one had to be fetched and can't be.
    """
    files = find_library() or _fetch(say)
    if opened_library(files) is not None:
        return open_library(files)
    return open_library(files, remedies=_remedies(files, model, say or say_on_stderr))


def _fetch(say: Say | None) -> LibraryFiles:
    from llamalite.core.installation import Wish, install_and_test

    outcome = install_and_test(Wish(), say)
    if outcome.failure is not None:
        raise outcome.failure
    return outcome.installed.scan()


def _remedies(files: LibraryFiles, model: Path | None, say: Say) -> Remedies:
    known = known_trial(files)
    if known is not None:
        return known.remedies
    if not is_wanted():
        return NO_REMEDIES
    override = config.library_override()
    prefix = "LLAMALITE_LIB: " if override is not None else ""
    try:
        trial = try_library(files, model=model)
    except LibraryError as error:
        raise type(error)(prefix + str(error)) from None
    if trial.notice:
        say(prefix + trial.notice)
    return trial.remedies
