"""What libllama says, in Python's log."""

from __future__ import annotations

import logging

import pytest

from llamalite.ffi import native_log
from llamalite.ffi.structs import LogLevel


@pytest.fixture(autouse=True)
def _fresh() -> None:
    native_log.forget()


def test_a_warning_in_parts_is_one_line_of_its_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llamalite.native")
    native_log.callback(LogLevel.WARN, b"load: a tensor", None)
    native_log.callback(LogLevel.CONT, b" is odd\n", None)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "load: a tensor is odd")
    ]


def test_a_full_cache_is_no_warning_but_stays_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "llamalite.native")
    line = b"decode: failed to find a memory slot for batch of size 208\n"
    for _ in range(100):
        native_log.callback(LogLevel.WARN, line, None)
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}
    assert native_log.recent_errors() == line.decode().strip()
