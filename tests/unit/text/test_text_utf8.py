from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llamalite.text.utf8 import Utf8Stream


def decoded(pieces: list[bytes]) -> str:
    stream = Utf8Stream()
    return "".join([stream.decode(piece) for piece in pieces]) + stream.flush()


def split(whole: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    return [whole[start:end] for start, end in pairwise(places)]


some_bytes = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass")),
    # Leads, continuations and truncations close together, where decoders differ.
    st.lists(st.sampled_from([0x41, 0x80, 0xBF, 0xC2, 0xE0, 0xED, 0xF0, 0xF4, 0xFF])).map(bytes),
)
some_cuts = st.lists(st.integers(0, 60), max_size=20)


@given(some_bytes, some_cuts)
def test_any_split_of_any_bytes_decodes_as_the_whole(whole, cuts):
    assert decoded(split(whole, cuts)) == whole.decode("utf-8", "replace")


@given(st.text(max_size=30), some_cuts)
def test_valid_text_never_shows_a_replacement_character(text, cuts):
    text = text.encode("utf-8", "ignore").decode().replace("�", "")
    stream = Utf8Stream()
    assert all("�" not in stream.decode(piece) for piece in split(text.encode(), cuts))


def test_a_split_emoji_is_held_back_until_it_is_complete():
    stream = Utf8Stream()
    first, second, third, fourth = (bytes([byte]) for byte in "🙂".encode())
    assert [stream.decode(b"a" + first), stream.decode(second), stream.decode(third)] == [
        "a",
        "",
        "",
    ]
    assert stream.decode(fourth + b"b") == "🙂b"
    assert stream.flush() == ""


def test_an_unfinished_character_becomes_one_replacement_at_the_end():
    stream = Utf8Stream()
    assert stream.decode("é🙂".encode()[:-1]) == "é"
    assert stream.flush() == "�"
    assert stream.decode(b"x") == "x"


def test_a_bad_byte_is_replaced_at_once():
    assert Utf8Stream().decode(b"a\xffb") == "a�b"
