import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamalite.errors import InvalidParameter
from llamalite.text.stop import StopStrings


def oracle(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Look at the whole text: earliest start, then shortest."""
    found = [(text.find(stop), len(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    start, _, stop = min(found)
    return text[:start], stop


def shown(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    stream = StopStrings(stops)
    text = "".join([stream.feed(piece) for piece in pieces])
    return text + stream.flush(), stream.matched


def split(whole: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    return [whole[start:end] for start, end in pairwise(places)]


letters = st.text("ab", max_size=30)
some_stops = st.lists(st.text("ab", min_size=1, max_size=6), max_size=4)
some_cuts = st.lists(st.integers(0, 30), max_size=30)


@given(letters, some_stops, some_cuts)
def test_any_split_shows_what_a_look_at_the_whole_text_shows(text, stops, cuts):
    assert shown(split(text, cuts), stops) == oracle(text, stops)


@given(letters, some_stops)
def test_what_is_shown_never_has_to_be_taken_back(text, stops):
    stream, so_far = StopStrings(stops), ""
    for char in text:
        so_far += stream.feed(char)
        assert oracle(text, stops)[0].startswith(so_far)


@given(letters, some_stops)
def test_no_more_is_held_back_than_could_begin_a_stop_string(text, stops):
    stream = StopStrings(stops)
    out = "".join([stream.feed(char) for char in text])
    if stream.matched is None and oracle(text, stops)[1] is None:
        held = text[len(out) :]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_a_stop_string_over_three_pieces_leaks_nothing():
    stream = StopStrings(["<|im_end|>"])
    assert [stream.feed(piece) for piece in ("Hi<|", "im_", "end|> more")] == ["Hi", "", ""]
    assert stream.matched == "<|im_end|>"
    assert stream.feed("more") == ""
    assert stream.flush() == ""


def test_text_that_turned_out_to_be_no_stop_string_is_released():
    stream = StopStrings(["###"])
    assert [stream.feed(piece) for piece in ("a##", "b", "#")] == ["a", "##b", ""]
    assert stream.flush() == "#"
    assert stream.matched is None


def test_the_earliest_start_wins_even_when_it_ends_later():
    assert shown(["abcd", "e"], ["bc", "abcde"]) == ("", "abcde")
    assert shown(["abcd", "x"], ["bc", "abcde"]) == ("a", "bc")
    assert shown(["abcd"], ["bc", "abcde"]) == ("a", "bc")


def test_of_stop_strings_with_one_start_the_shortest_wins_at_once():
    stream = StopStrings(["aab", "aa"])
    assert stream.feed("xaa") == "x"
    assert stream.matched == "aa"


def test_without_stop_strings_everything_passes():
    stream = StopStrings([])
    assert stream.feed("abc") == "abc"
    assert stream.flush() == ""


@pytest.mark.parametrize("stops", [[""], ["a", ""], [3]])
def test_empty_stop_strings_are_refused(stops):
    with pytest.raises(InvalidParameter) as error:
        StopStrings(stops)
    assert error.value.param == "stop"


def test_a_long_nearly_matching_stop_string_takes_linear_time():
    stream = StopStrings(["a" * 5000 + "b"])
    start = time.process_time()
    shown_text = "".join([stream.feed("a" * 50) for _ in range(2000)])
    assert len(shown_text) == 95_000
    assert time.process_time() - start < 2
