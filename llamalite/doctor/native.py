"""Every libllama on this machine, the one that is used, and whether it works.

Owns what is said of each. Opens no library: the self-test does, in a child process. Imports
`llamalite.libs`, `core.trial`, `config`, `errors` and `report`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llamalite import config
from llamalite.core.trial import is_wanted, try_library
from llamalite.doctor.report import LibraryFacts, SelfTest
from llamalite.errors import LibraryError
from llamalite.libs.files.folder import LibraryFiles, scan_folder
from llamalite.libs.files.inspect import check_loadable
from llamalite.libs.find import Installed, find_library, list_installed, marked_folder
from llamalite.libs.platforms import current_platform

OVERRIDE, MARKED, INSTALLED = "LLAMALITE_LIB", "lib use", "installed"
"""How a library was found."""


def library_facts() -> tuple[LibraryFacts, ...]:
    """Look at `LLAMALITE_LIB`, at what `lib use` chose and at every install, by their files."""
    override = config.library_override()
    installs = list_installed()
    found = []
    chosen = None
    if override is not None:
        found.append(_folder_facts(OVERRIDE, override.absolute(), None))
    elif (files := find_library()) is not None:
        chosen = files.folder
    marked = marked_folder()
    if marked is not None and all(marked != item.folder for item in installs):
        found.append(_folder_facts(MARKED, marked, chosen))
    return (*found, *(_installed_facts(item, chosen) for item in installs))


def self_test(say: Callable[[str], None] | None = None) -> SelfTest:
    """Test the library in use in a child process, unless tests are switched off.

    Args:
        say: takes a line where the test takes long.
    """
    try:
        files = find_library()
        if files is None:
            return SelfTest("none")
        if not is_wanted():
            check_loadable(files)
            return SelfTest("off", "LLAMALITE_SELFTEST switches it off", release=files.release)
        trial = try_library(files, say)
    except LibraryError as error:
        return SelfTest("failed", str(error))
    return SelfTest(
        state="passed",
        said=trial.notice,
        release=trial.release,
        model_layout=trial.model_layout,
        context_layout=trial.context_layout,
        cpu_variant=trial.cpu_variant,
        use_extra_bufts=trial.remedies.use_extra_bufts,
        tokens_s=trial.tokens_s,
        devices=trial.devices,
    )


def _folder_facts(found_by: str, folder: Path, chosen: Path | None) -> LibraryFacts:
    files, notes, why_not = _inspect(lambda: scan_folder(folder))
    place = files.folder if files else folder
    return LibraryFacts(
        found_by=found_by,
        folder=str(place),
        release=files.release if files else None,
        backend=None,
        platform=None,
        source=None,
        is_chosen=found_by == OVERRIDE or place == chosen,
        why_not=why_not,
        notes=notes,
    )


def _installed_facts(installed: Installed, chosen: Path | None) -> LibraryFacts:
    notes: tuple[str, ...] = ()
    if installed.platform == str(current_platform()):
        _, notes, why_not = _inspect(installed.scan)
    else:
        why_not = f"it is for {installed.platform}"
    return LibraryFacts(
        found_by=INSTALLED,
        folder=str(installed.folder),
        release=installed.release,
        backend=installed.backend,
        platform=installed.platform,
        source=installed.source,
        is_chosen=installed.folder == chosen,
        why_not=why_not,
        notes=notes,
    )


def _inspect(
    scan: Callable[[], LibraryFiles],
) -> tuple[LibraryFiles | None, tuple[str, ...], str | None]:
    """Return the files, what is said of their optional parts, and why they can't be used."""
    files = None
    try:
        files = scan()
        return files, tuple(check_loadable(files)), None
    except LibraryError as error:
        return files, (), str(error)
