from __future__ import annotations

import string
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamalite.errors import InvalidParameter, ModelNotFound
from llamalite.models.locate import locate
from llamalite.models.names.reference import parse_reference
from llamalite.models.names.safety import check_file_name, check_name, is_safe

UNSAFE = [
    "",
    ".",
    "..",
    "../m.gguf",
    "a/../m.gguf",
    "a/..",
    "/m.gguf",
    "//host/m.gguf",
    "a//m.gguf",
    "a/",
    "./m.gguf",
    "a\\..\\m.gguf",
    "\\\\host\\m.gguf",
    "C:m.gguf",
    "a/C:/m.gguf",
    "m.gguf:stream",
    "a\0.gguf",
    "a\n.gguf",
    "a\x1b[31m.gguf",
    "a\x85.gguf",
    "NUL",
    "a/con.gguf",
    "COM1.gguf",
    "a./m.gguf",
    "a /m.gguf",
    ".m.gguf",
    "a/.hid/m.gguf",
    "." + "x" * 300,
    "x" * 300 + ".gguf",
    "\udc80.gguf",
    "x/" * 600 + "m.gguf",
]


@pytest.mark.parametrize("path", UNSAFE)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(InvalidParameter, match=r"o/r: the file name .*refused") as caught:
        check_file_name(path, "o/r")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "path", ["m.gguf", "Q8_0/m-00001-of-00002.gguf", "a b/ü.gguf", "a.b/m.gguf", "console.gguf"]
)
def test_plain_paths_pass(path: str) -> None:
    assert check_file_name(path, "o/r") == path


# Pieces that lead out of a folder on one system or another, and plain ones between them.
PIECES = st.sampled_from(["..", ".", "/", "\\", "~", "C:", "nul", " ", "\0", "a", "m.gguf", "%2e"])


@given(st.lists(PIECES, max_size=8).map("".join))
@settings(max_examples=300, deadline=None)
def test_what_passes_stays_below_its_folder_on_every_system(path: str) -> None:
    if not is_safe(path):
        return
    for kind in (PurePosixPath, PureWindowsPath):
        pure = kind(path)
        assert not pure.is_absolute()
        assert not pure.drive
        assert ".." not in pure.parts
    assert Path("/folder").joinpath(path).resolve().is_relative_to("/folder")


@given(st.lists(PIECES, max_size=8).map("".join))
@settings(max_examples=100, deadline=None)
def test_no_reference_holds_a_path_that_leads_elsewhere(tail: str) -> None:
    for name in (f"hf:o/r/{tail}.gguf", f"o/r/{tail}.gguf", f"o/r:Q8_0@{tail}"):
        try:
            reference = parse_reference(name)
        except InvalidParameter:
            continue
        if reference is not None:
            parts = reference.repo.split("/")
            assert len(parts) == 2
            assert ".." not in parts
            assert reference.file is None or is_safe(reference.file)
            assert reference.revision is None or is_safe(reference.revision)


@given(st.text(st.sampled_from(string.printable + "ü\0\x7f\u202e"), max_size=12))
@settings(max_examples=300, deadline=None)
def test_what_passes_as_a_name_is_no_path(name: str) -> None:
    try:
        check_name(name, "the alias")
    except InvalidParameter:
        return
    assert PurePosixPath(name).parts == (name,)
    assert PureWindowsPath(name).parts == (name,)
    assert not name.startswith(("-", ".", "~"))
    assert parse_reference(name) is None


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "a\\b", "..", "~x", "-x", "C:x", "hf:x", "x.gguf", "NUL", "nul:1", "a b", ""],
)
def test_names_that_would_read_as_something_else_are_refused(name: str) -> None:
    with pytest.raises(InvalidParameter, match=r"the alias .*choose another"):
        check_name(name, "the alias")


@pytest.mark.parametrize("name", ["mario", "mario:latest", "my-model_2.0", "Größe:7b", "x" * 100])
def test_usual_names_pass(name: str) -> None:
    assert check_name(name, "the alias") == name


def test_a_name_may_be_spelled_with_letters_and_accents_apart() -> None:
    apart = unicodedata.normalize("NFD", "Größe:7b")
    assert check_name(apart, "the alias") == "Größe:7b" != apart


@pytest.mark.parametrize("name", ["hf:o/r/../../m.gguf", "hf:o/r/a\\b.gguf", "o/r@../../x"])
def test_references_that_lead_out_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(InvalidParameter, match="refused") as caught:
        locate(name)
    assert "\n" not in str(caught.value)


def test_what_may_be_meant_as_a_path_is_one() -> None:
    with pytest.raises(ModelNotFound, match=r"there is no file 'o/r/../../m.gguf'"):
        locate("o/r/../../m.gguf")
