"""From a wish to a tested libllama in use: what `lib install`, `lib use` and the script do.

Owns the order choose, install, test, use, and what is said where the test fails. Doesn't know
command lines. Imports the standard library, `llamalite.errors`, `llamalite.libs` and its siblings.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from llamalite import config
from llamalite.core.backend_choice import (
    BackendChoice,
    choose_backends,
    install_best,
)
from llamalite.core.trial import Trial, is_wanted, try_library
from llamalite.errors import LibraryError, LibraryIncompatible
from llamalite.libs.files.folder import LibraryFiles, scan_folder
from llamalite.libs.find import (
    Installed,
    find_install,
    list_installed,
    marked_folder,
    use_install,
)
from llamalite.libs.platforms import Platform, current_platform, is_here
from llamalite.libs.sources.assets import FAMILIES
from llamalite.libs.transfer.progress import say_on_stderr

Say = Callable[[str], None]
_FILES_TELL = "cpu"
_NEEDED = ("numpy", "platformdirs")  # a bare checkout has neither


@dataclass(frozen=True)
class Wish:
    """What is to be installed, as on the command line; None and () leave it to llamalite."""

    backend: str | None = None
    release: str | None = None
    platform: str | None = None
    dest: Path | None = None
    sources: tuple[str, ...] = ()
    local: Path | None = None
    allow_unverified: bool = False
    test: bool = True


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        trial: what the test found; None where there was none.
        failure: why the install isn't used though it is there; None where all is well.
    """

    installed: Installed
    trial: Trial | None = None
    failure: LibraryError | None = None


def install_and_test(wish: Wish, say: Say | None = None) -> Outcome:
    """Install a build, test it where it can run, and use it from then on.

    Args:
        wish: what to install.
        say: takes lines for a person; None for stderr, with a bar on a terminal.

    Raises:
        LibraryError, DownloadError: it can't be installed. A failed test is in the outcome.
    """
    platform = Platform.parse(wish.platform) if wish.platform else current_platform()
    runs_here, is_ours = is_here(platform), wish.dest is None
    previous = _in_use() if runs_here and is_ours else None
    trials: dict[Path, Trial | None] = {}

    def accept(choice: BackendChoice, installed: Installed) -> None:
        trial = trials[installed.folder] = trial_of(installed.scan(), say)
        if trial and not trial.has_gpu:
            raise LibraryIncompatible(
                f"{installed.folder} was installed for {choice.backend} and offers no GPU here"
            )

    choices = _choices(wish, platform)
    installed = install_best(
        say,
        choices,
        accept if runs_here and wish.test else None,
        release=wish.release,
        platform=platform,
        dest=wish.dest,
        sources=wish.sources or None,
        local=wish.local,
        allow_unverified=wish.allow_unverified,
    )
    if not runs_here:
        return Outcome(installed)
    try:
        if wish.test and installed.folder not in trials:
            trials[installed.folder] = trial_of(installed.scan(), say)
    except LibraryError as error:
        stays = _go_on_with(previous) if previous and previous != installed.folder else ""
        failure = f"libllama is installed in {installed.folder} but isn't used{stays}: {error}"
        return Outcome(installed, None, type(error)(failure))
    if is_ours:
        use_install(installed.folder)
        installed = replace(installed, active=True)
    trial = trials.get(installed.folder)
    if trial and choices[0].asked and choices[0].backend != _FILES_TELL and not trial.has_gpu:
        (say or say_on_stderr)(
            f"backend {choices[0].backend} was asked for, but the libllama in {installed.folder} "
            f"offers no GPU on this machine: it computes on the CPU"
        )
    return Outcome(installed, trial)


def use_tested(
    name_or_path: str, say: Say | None = None, *, test: bool = True
) -> tuple[LibraryFiles, Trial | None]:
    """Test an install or a folder with libllama, and use it from then on.

    Raises:
        LibraryError: there is none, or it can't be used here; then nothing is changed.
    """
    folder = find_install(name_or_path)
    trial = trial_of(scan_folder(folder), say) if test else None
    files = use_install(folder)
    (say or say_on_stderr)(f"libllama {files.release or 'of unknown release'} is used from now on")
    return files, trial


def trial_of(files: LibraryFiles, say: Say | None = None) -> Trial | None:
    """Test a library and say what was found; None where no test can be run.

    Raises:
        LibraryError: it doesn't work on this machine.
    """
    tell = say or say_on_stderr
    if not is_wanted():
        tell("not tested: LLAMALITE_SELFTEST switches the test off")
        return None
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        tell(f"not tested: this Python lacks {' and '.join(missing)}; 'llamalite doctor' tests it")
        return None
    trial = try_library(files, tell)
    if trial.notice:
        tell(trial.notice)
    return trial


def _choices(wish: Wish, platform: Platform) -> list[BackendChoice]:
    requested = config.requested_backend(wish.backend)
    if wish.local is not None and (wish.backend is None or requested == config.AUTO_BACKEND):
        return [BackendChoice(_FILES_TELL, "the files tell", asked=True)]
    published = None if wish.release is None else FAMILIES[str(platform)]
    return choose_backends(platform, published, requested)


def _in_use() -> Path | None:
    """Return the folder that is in use where LLAMALITE_LIB doesn't say otherwise."""
    here = str(current_platform())
    installs = (item.folder for item in list_installed() if item.platform == here)
    return marked_folder() or next(installs, None)


def _go_on_with(previous: Path) -> str:
    """See that what was in use stays so; return that as the end of a sentence."""
    try:
        use_install(previous)
    except LibraryError:
        return ""
    return f", and {previous} stays in use"
