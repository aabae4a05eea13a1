"""From nothing to an opened libllama: found or fetched, tested once on this machine, opened.

Owns the order of these steps. Imports `llamalite.libs`, `ffi`, `llamalite.errors` and its siblings.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from llamalite import config
from llamalite.core.trial import Trial, is_wanted, known_trial, try_library
from llamalite.errors import LibraryError
from llamalite.ffi.library import Library, open_library, opened_library
from llamalite.ffi.variants import NO_REMEDIES, Remedies
from llamalite.libs.files.folder import LibraryFiles
from llamalite.libs.find import find_library
from llamalite.libs.transfer.progress import say_on_stderr

Say = Callable[[str], None]

_lock = threading.RLock()


def ready_library(say: Say | None = None) -> Library:
    """Return libllama, opened: fetched if there is none, tested if it is new on this machine.

    Args:
        say: takes lines for a person; None for stderr, with a bar on a terminal.

    Raises:
        LibraryError: none can be found, loaded or used here.
        Offline, DownloadError: one had to be fetched and can't be.
    """
    tell = say or say_on_stderr
    with _lock:  # threads that come at once share one fetch and one test
        found = find_library(tell)
        files = found or _fetch(say)
        if opened_library(files) is not None:
            return open_library(files)
        return open_library(files, remedies=_remedies(files, tell, is_new=found is None))


def _fetch(say: Say | None) -> LibraryFiles:
    from llamalite.core.installation import Wish, install_and_test

    outcome = install_and_test(Wish(), say)
    if outcome.failure is not None:
        raise outcome.failure
    return outcome.installed.scan()


def _remedies(files: LibraryFiles, say: Say, *, is_new: bool) -> Remedies:
    trial = known_trial(files)
    if trial is None:
        if not is_wanted():
            return NO_REMEDIES
        trial = _tested(files, say)
    backend = config.requested_backend()
    if not (
        is_new or trial.has_gpu or backend in (config.AUTO_BACKEND, "cpu")
    ):  # the install has said it already
        say(
            f"LLAMALITE_BACKEND={backend} was asked for, but the libllama in {files.folder} offers "
            f"no GPU on this machine: it computes on the CPU"
        )
    return trial.remedies


def _tested(files: LibraryFiles, say: Say) -> Trial:
    prefix = "LLAMALITE_LIB: " if config.library_override() is not None else ""
    try:
        trial = try_library(files, say)
    except LibraryError as error:
        text = str(error)
        raise type(error)(text if text.startswith("LLAMALITE_") else prefix + text) from None
    if trial.notice:
        say(prefix + trial.notice)
    return trial
