"""Where a file's bytes are asked for: all of them, or those that are still missing.

Owns the requests, and which answers may be the file or its rest. Doesn't know what is done with the
bytes. Imports `llamalite.errors`, `answers`, `expected`, `partial`, `patience` and `wording`;
network libraries inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llamalite.errors import DownloadError
from llamalite.libs.transfer import answers
from llamalite.libs.transfer.expected import Expected
from llamalite.libs.transfer.partial import PartialFile
from llamalite.libs.transfer.patience import LEAST_BYTES, Beat
from llamalite.libs.transfer.wording import one_line

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from llamalite.libs.transfer.web import Refused, Unanswered

LONGEST_WAIT_S = 60.0
"""Longest time to wait where the server asks for that."""

_PASSING = {408, 425, 429, 500, 502, 503, 504}


class Broken(Exception):
    """It broke off and may go on; what arrived before is good.

    Attributes:
        failure: what asking anew came to, or None if a connection broke.
    """

    def __init__(self, reason: str, failure: Refused | Unanswered | None = None) -> None:
        self.failure = failure
        super().__init__(reason)


class Whole(Exception):
    """The server says that there is no more than what is here."""


@dataclass
class Source:
    """An address, and what is known of the file there.

    Attributes:
        url: asked again whenever the transfer is taken up, redirects and all.
        secrets: headers for the url's own host.
        where: what errors call the address; "" for the url itself.
        version: strong ETag or Last-Modified of what a part of unknown digest was begun with.
        total: the whole file's size, as far as anybody has said it.
        takes_ranges: False once the server has shown that it can't continue a file.
        was_answered: True once the server has shown that it is there.
    """

    url: str
    expected: Expected
    secrets: Mapping[str, str] = field(default_factory=dict)
    where: str = ""
    version: str = ""
    total: int | None = None
    takes_ranges: bool = True
    was_answered: bool = False

    def __post_init__(self) -> None:
        self.where = self.where or self.url
        if self.expected.n_bytes is not None:
            self.total = self.expected.n_bytes

    def ask(self, part: PartialFile, silence_s: float, beat: Beat) -> HTTPResponse:
        """Return the rest of the file (status 206), or all of it where the rest can't be had (200).

        Raises:
            Whole: there is no rest.
            Broken: no answer came, or a refusal, but that may pass.
            Refused, Unanswered, DownloadError: it is no use to wait.
        """
        if part.n_bytes and self.takes_ranges and (self.expected.digest or self.version):
            if (answer := self._rest(part, silence_s, beat)) is not None:
                return answer
            self.takes_ranges = False
        answer = self._open({}, silence_s, beat)
        if answer.status != 200:
            answer.close()
            raise self.something_else(answer, f"an answer of status {answer.status}", part)
        return answer

    def check_begin(self, answer: HTTPResponse, block: bytes, part: PartialFile) -> None:
        """Refuse what can't be the whole file, before it takes the place of what is kept.

        Args:
            answer: of status 200.
            block: its first kilobyte or more.
            part: what is kept.

        Raises:
            DownloadError: it is something else.
            Broken: next to nothing of it came.
        """
        total = answers.total_of(answer)
        if part.n_bytes and len(block) < LEAST_BYTES and len(block) != total:
            raise Broken("the connection was closed")
        # Of the same file nothing else can come than what is kept of it.
        is_unsaid = total is None and self.expected.digest
        if not block.startswith(self.expected.begins or (part.head if is_unsaid else b"")):
            came = one_line(block[:20].decode("latin-1"))
            raise self.something_else(answer, f"what begins with {came!r}", part)

    def something_else(self, answer: HTTPResponse, came: str, part: PartialFile) -> DownloadError:
        """Return the error for an answer that doesn't bring the file."""
        page = " (a web page: does the network want a login?)" if answers.is_page(answer) else ""
        return DownloadError(
            f"{self.where} gave {came}{page}, not {self.expected}: see that the address is right, "
            f"and try again{part.kept}"
        )

    def _rest(self, part: PartialFile, silence_s: float, beat: Beat) -> HTTPResponse | None:
        """Ask for the rest, and return what may be that or all of it; None where neither came."""
        from llamalite.libs.transfer.web import Refused

        condition = {} if self.expected.digest else {"If-Range": self.version}
        try:
            answer = self._open({"Range": f"bytes={part.n_bytes}-", **condition}, silence_s, beat)
        except Refused as refusal:
            if refusal.status != 416:
                raise
            n_there = answers.total_of_refusal(refusal.headers)
            if n_there == part.n_bytes and self.total in (None, n_there):
                raise Whole from None
            return None
        if answer.status == 200 or (
            answers.start_of(answer) == part.n_bytes and (not condition or self._is_same(answer))
        ):
            return answer
        answer.close()
        return None

    def _is_same(self, answer: HTTPResponse) -> bool:
        """Say whether a part is one of the file that is here in part, as far as it tells."""
        total = answers.total_of(answer)
        is_as_long = total is None or self.total in (None, total)
        return is_as_long and answers.is_version(answer, self.version)

    def _open(self, headers: dict[str, str], silence_s: float, beat: Beat) -> HTTPResponse:
        from llamalite.libs.transfer.web import Refused, Unanswered, open_url

        try:
            answer = open_url(self.url, headers, self.secrets, silence_s=silence_s, beat=beat)
            self.was_answered = True
            return answer
        except Unanswered as failure:
            if not self.was_answered:
                raise
            raise Broken(failure.reason, failure) from None
        except Refused as refusal:
            if refusal.status not in _PASSING or wait_of(refusal, 1) > LONGEST_WAIT_S:
                raise
            raise Broken(f"the server answered {refusal.status}", refusal) from None


def wait_of(failure: Refused | Unanswered | None, retries: int) -> float:
    """Return the seconds to wait before asking again: those the server asks for, if it does."""
    if failure is None:
        return 0.2 * retries
    headers = getattr(failure, "headers", None)
    said = None if headers is None else answers.wait_of(headers)
    return min(0.25 * 2**retries, 4.0) if said is None else said
