"""Where an engine's process can be found, and what becomes of folders nobody owns any more."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from llamalite.engine.process import rendezvous
from llamalite.engine.process.crossing import problem_of
from llamalite.engine.process.rendezvous import (
    FAILED,
    READY,
    Owner,
    Visitor,
    locked_folder,
    run_folder,
    sweep,
)
from llamalite.errors import DoesNotFit, EngineClosed, EngineError


def always() -> bool:
    return True


def test_a_visitor_reads_what_the_owner_says() -> None:
    owner = Owner()
    visitor = Visitor(owner.folder)
    timer = threading.Timer(
        0.05, lambda: owner.say(status=READY, incarnation=1, address="unix:/x", secret=b"\xff\0")
    )
    timer.start()
    state = visitor.wait_ready(always)
    assert (state.incarnation, state.address, state.secret) == (1, "unix:/x", b"\xff\0")
    assert visitor.death_of(1, limit_s=0.05) is None
    owner.died("SIGSEGV: bad memory access")
    assert visitor.death_of(1) == "SIGSEGV: bad memory access"
    assert visitor.death_of(2) is None
    assert visitor.state().n_restarts == 1
    owner.say(status=FAILED, problem=problem_of(DoesNotFit("9 GB")))
    with pytest.raises(DoesNotFit, match="9 GB"):
        visitor.wait_ready(always)
    owner.close()
    for ask in (visitor.state, lambda: visitor.wait_ready(always)):
        with pytest.raises(EngineClosed):
            ask()
    assert visitor.death_of(1) is None


def test_waiting_ends_when_the_owner_is_gone_or_nobody_waits_any_more() -> None:
    owner = Owner()
    visitor = Visitor(owner.folder)
    assert visitor.has_owner()
    with pytest.raises(EngineClosed, match="meanwhile"):
        visitor.wait_ready(lambda: False)
    owner.say(status=READY, incarnation=1)
    owner.let_go()  # as the system does when it dies
    assert not visitor.has_owner()
    with pytest.raises(EngineClosed, match="gone"):
        visitor.wait_ready(always)


def test_what_cannot_be_written_for_a_moment_is_written_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = Owner()
    replace, read_bytes, n_failed = os.replace, Path.read_bytes, 0

    def failing(*args: Any) -> Any:
        nonlocal n_failed
        n_failed += 1
        if n_failed % 3:
            raise PermissionError(errno.EACCES, "someone has it open")
        return replace(*args) if len(args) == 2 else read_bytes(*args)

    monkeypatch.setattr(os, "replace", failing)
    assert owner.say(status=READY, incarnation=1)
    monkeypatch.setattr(Path, "read_bytes", failing)
    assert Visitor(owner.folder).state().status == READY
    assert n_failed == 6
    monkeypatch.undo()
    owner.close()


def test_who_cannot_write_may_leave_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_RETRY_S", 0.05)
    owner = Owner()
    visitor = Visitor(owner.folder)
    owner.say(status=READY, incarnation=1)

    def failing(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        assert not owner.say(status=FAILED)
    assert visitor.state().status == READY
    owner.abandon()
    assert not visitor.has_owner()
    with pytest.raises(EngineClosed):
        visitor.state()
    owner.close()
    assert not owner.folder.exists()


def test_only_the_last_deaths_are_kept() -> None:
    owner = Owner()
    for incarnation in range(1, 30):
        owner.say(status=READY, incarnation=incarnation)
        owner.died(str(incarnation))
    assert list(owner.state.deaths) == list(range(22, 30))
    owner.close()


def test_folders_without_owner_are_swept_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_YOUNG_S", -1.0)
    within = run_folder()
    living, handle = locked_folder(within)
    dead, dropped = locked_folder(within)
    os.close(dropped)
    (within / "host").mkdir()
    sweep(within)
    assert sorted(path.name for path in within.iterdir()) == sorted([living.name, "host"])
    assert not dead.exists()
    os.close(handle)


def test_young_folders_stay_as_their_lock_may_be_yet_to_come() -> None:
    folder, handle = locked_folder(run_folder())
    os.close(handle)
    sweep(run_folder())
    assert folder.exists()


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX rights")
def test_the_folder_is_private(home: Path) -> None:
    (home / "run").mkdir(parents=True)
    (home / "run").chmod(0o777)
    assert run_folder() == home / "run"
    assert (home / "run").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX rights")
def test_a_home_that_cannot_be_written_has_its_folder_elsewhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    home.touch()
    folder = run_folder()
    assert folder == tmp_path / f"llamalite-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    folder.symlink_to("/")  # a trap for whoever follows it
    with pytest.raises(EngineError, match="belongs to someone else"):
        run_folder()


def test_waiting_costs_ever_less(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner()
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(EngineClosed):
        Visitor(owner.folder).wait_ready(lambda: len(pauses) < 10)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.01, 0.1)
    owner.close()
