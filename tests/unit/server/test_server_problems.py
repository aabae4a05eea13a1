from __future__ import annotations

import inspect

import pytest

from llamalite import errors
from llamalite.server.problems import STATUSES, problem_of

EVERY = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, errors.LlamaliteError)
]


@pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)
def test_every_error_has_a_status_of_its_kind(cls: type[errors.LlamaliteError]) -> None:
    error = cls(3, 2) if cls is errors.ContextLengthExceeded else cls.__new__(cls)
    status = problem_of(error).status
    if issubclass(cls, errors.QueueFull | errors.EngineClosed | errors.DoesNotFit):
        assert status == 503
    elif issubclass(cls, errors.RequestError):
        assert status == 400
    else:
        assert 400 <= status < 600


def test_the_table_names_no_class_twice_by_inheritance() -> None:
    for cls, row in STATUSES.items():
        above = [STATUSES[base] for base in cls.__mro__[1:] if base in STATUSES]
        assert not above or row != above[0], cls


def test_both_numbers_of_a_full_context_are_told() -> None:
    body = problem_of(errors.ContextLengthExceeded(3000, 1024)).body()["error"]
    assert body["code"] == "context_length_exceeded"
    assert body["n_prompt_tokens"] == 3000
    assert body["n_ctx"] == 1024


def test_what_went_wrong_inside_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    problem = problem_of(ValueError("secret"))
    assert problem.status == 500
    assert "secret" not in problem.message
    assert "secret" in caplog.text
