from __future__ import annotations

import random
import struct
import time
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gguf_models import (
    raw_array,
    raw_field,
    raw_file,
    raw_string,
    raw_tensor,
    write_every_type,
    write_llama,
)

from llamalite.errors import BadField, GGUFError, NotGGUF, Truncated, UnsupportedVersion
from llamalite.gguf import Array, GGUFReader, GGUFWriter, describe

HUGE = (2**31, 2**32 - 1, 2**32, 2**40, 2**61, 2**63 - 1, 2**63, 2**64 - 1)


def examine(reader: GGUFReader) -> None:
    """Read everything there is to read."""
    for value in reader.metadata.values():
        visit(value)
    for tensor in reader.tensors:
        assert len(reader.tensor_bytes(tensor)) == tensor.n_bytes
    describe(reader)


def visit(value: Any, depth: int = 0) -> None:
    assert depth < 100
    if isinstance(value, Array):
        for element in value:
            visit(element, depth + 1)
        if value:
            repr(value[-1])


def survives(content: bytes) -> bool:
    """Say whether the bytes are a GGUF file; anything but GGUFError propagates."""
    try:
        examine(GGUFReader.from_bytes(content))
    except GGUFError:
        return False
    return True


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Sequence[bytes]:
    folder = tmp_path_factory.mktemp("models")
    paths = [
        write_every_type(folder / "little.gguf"),
        write_every_type(folder / "big.gguf", byteorder="big", version=2),
        write_llama(folder / "llama.gguf"),
    ]
    return [path.read_bytes() for path in paths]


def test_cut_short_anywhere_is_a_gguf_error(models: Sequence[bytes], tmp_path: Path) -> None:
    for content in models[1:]:
        end = GGUFReader.from_bytes(content).tensors[-1]
        for length in range(end.start + end.n_bytes):
            with pytest.raises(Truncated if length >= 4 else NotGGUF) as caught:
                GGUFReader.from_bytes(content[:length])
            assert caught.value.offset is None or caught.value.offset <= length
        path = tmp_path / "cut.gguf"
        for length in range(0, end.start, 7):
            path.write_bytes(content[:length])
            with pytest.raises(GGUFError):
                GGUFReader(path)


def test_every_single_bit_may_flip(models: Sequence[bytes]) -> None:
    for content in models[1:]:
        flipped = bytearray(content)
        for position in range(GGUFReader.from_bytes(content).data_offset):
            flipped[position] ^= 1 << position % 8
            survives(bytes(flipped))
            flipped[position] = content[position]


def test_every_length_and_count_may_lie(models: Sequence[bytes]) -> None:
    content = models[0]
    positions = range(8, GGUFReader.from_bytes(content).data_offset - 8)
    lengths = [at for at in positions if content[at + 2 : at + 8] == bytes(6)]
    for position in lengths:
        for lie in (0, 300, 2**31, 2**63, 2**64 - 1):
            survives(content[:position] + struct.pack("<Q", lie) + content[position + 8 :])


N_FUZZED = 6000
NAMES = (
    "general.architecture",
    "general.alignment",
    "llama.block_count",
    "llama.attention.head_count",
    "tokenizer.ggml.tokens",
    "tokenizer.chat_template",
    "tokenizer.chat_templates",
    "split.count",
    "split.no",
)


class Chance(random.Random):
    """Draws what files are made of; a hundred times as fast as hypothesis, which shrinks."""

    def number(self) -> int:
        return self.choice((self.choice(HUGE), self.randint(0, 300), self.getrandbits(64)))

    def up_to(self, n_bytes: int) -> bytes:
        return self.randbytes(self.randint(0, n_bytes))

    def mutated(self, content: bytes) -> bytes:
        """Return the content with one to four changes."""
        for _ in range(self.randint(1, 4)):
            at = self.randrange(len(content) or 1)
            how = self.choice(("flip", "u64", "type", "cut", "insert", "delete"))
            put, n_dropped = b"", 0
            if how == "flip" and content:
                put = bytes([content[at] ^ 1 << self.randrange(8)])
            elif how == "u64":
                put = struct.pack("<Q", self.number())
            elif how == "type":
                put = struct.pack("<I", self.randint(0, 14))
            elif how == "cut":
                n_dropped = len(content)
            elif how == "insert":
                content = content[:at] + self.up_to(24) + content[at:]
            elif how == "delete":
                n_dropped = self.randint(1, 24)
            content = content[:at] + put + content[at + max(len(put), n_dropped) :]
        return content

    def array(self, depth: int = 0) -> bytes:
        if depth == 3 or self.random() < 0.5:
            count = self.choice((self.randint(0, 4), self.number()))
            return raw_array(self.randint(0, 13), count, self.up_to(40))
        parts = [self.array(depth + 1) for _ in range(self.randint(0, 4))]
        return raw_array(9, len(parts) + self.choice((0, 0, 0, 1, 2**40)), b"".join(parts))

    def field(self) -> bytes:
        name = self.choice((self.choice(NAMES), self.up_to(4) or b"llama"))
        payload = self.choice(
            (
                lambda: (9, self.array()),
                lambda: (8, raw_string(self.up_to(12))),
                lambda: (self.randint(0, 13), self.up_to(12)),
            )
        )
        return raw_field(name, *payload())

    def tensor(self) -> bytes:
        name = self.choice(("blk.0.x", "blk.99999.x", "y", self.up_to(8)))
        shape = [
            self.choice((self.randint(0, 64), self.number())) for _ in range(self.randint(0, 5))
        ]
        offset = self.choice((0, self.randint(0, 4) * 32, self.number()))
        return raw_tensor(name, shape, self.randint(0, 45), offset)

    def file(self) -> bytes:
        return raw_file(
            [self.field() for _ in range(self.randint(0, 4))],
            [self.tensor() for _ in range(self.randint(0, 3))],
            self.choice((b"", bytes(300))),
            n_fields=self.choice((None, self.number())),
            n_tensors=self.choice((None, self.number())),
        )


def all_survive(make: Callable[[Chance], bytes]) -> None:
    for number in range(N_FUZZED):
        content = make(Chance(number))
        try:
            survives(content)
        except Exception as error:
            raise AssertionError(f"file {number}: {content!r}: {error!r}") from error


def test_fuzzed_models(models: Sequence[bytes]) -> None:
    all_survive(lambda chance: chance.mutated(chance.choice(models)))


def test_fuzzed_structures() -> None:
    all_survive(Chance.file)


NAME = raw_field("general.architecture", 8, raw_string("llama"))
ROW = raw_tensor("t", (4,), 0, 0)
MALFORMED = {
    "magic": (b"GGML" + bytes(60), NotGGUF, "starts with b'GGML'"),
    "version 1": (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), UnsupportedVersion, "version 1"),
    "version 4": (b"GGUF" + struct.pack(">IQQ", 4, 0, 0), UnsupportedVersion, "version 4"),
    "many keys": (raw_file([NAME], n_fields=2**63), Truncated, "table of 9223372036854775808 keys"),
    "many tensors": (raw_file([NAME], n_tensors=2**40), Truncated, "a table of 1099511627776 tens"),
    "empty key": (raw_file([raw_field("", 0, b"\0")]), BadField, "a key is empty"),
    "long key": (raw_file([raw_field("k" * 65536, 0, b"\0")]), BadField, "more than 65535"),
    "raw key": (raw_file([raw_field(b"\xff", 0, b"\0")]), BadField, "a key is no UTF-8"),
    "key twice": (raw_file([NAME, NAME]), BadField, "'general.architecture' comes twice"),
    "value type": (raw_file([raw_field("k", 13, bytes(8))]), BadField, "unknown type 13"),
    "truth": (raw_file([raw_field("k", 7, b"\2")]), BadField, "a truth value is 2"),
    "string": (raw_file([raw_field("k", 8, struct.pack("<Q", 2**63))]), Truncated, "'k' ends past"),
    "element": (raw_file([raw_field("k", 9, raw_array(13, 0))]), BadField, "unknown type 13"),
    "numbers": (raw_file([raw_field("k", 9, raw_array(12, 2**61))]), Truncated, "FLOAT64 ends"),
    "strings": (raw_file([raw_field("k", 9, raw_array(8, 2**61))]), Truncated, "strings ends"),
    "arrays": (raw_file([raw_field("k", 9, raw_array(9, 2**61))]), Truncated, "arrays ends"),
    "alignment": (
        raw_file([raw_field("general.alignment", 4, struct.pack("<I", 48))]),
        BadField,
        "power of two",
    ),
    "alignment 0": (
        raw_file([raw_field("general.alignment", 4, bytes(4))]),
        BadField,
        "power of two",
    ),
    "alignment type": (
        raw_file([raw_field("general.alignment", 8, raw_string("32"))]),
        BadField,
        "no UINT32",
    ),
    "tensor twice": (raw_file([], [ROW, ROW], bytes(64)), BadField, "tensor 't' comes twice"),
    "long name": (raw_file([], [raw_tensor("t" * 65, (4,), 0, 0)]), BadField, "more than 64"),
    "raw name": (raw_file([], [raw_tensor(b"\xff", (4,), 0, 0)]), BadField, "no UTF-8"),
    "dims": (raw_file([], [raw_tensor("t", [1] * 5, 0, 0)]), BadField, "5 dimensions"),
    "many dims": (raw_file([], [raw_tensor("t", (4,), 0, 0, 2**32 - 1)]), BadField, "dimensions"),
    "negative": (raw_file([], [raw_tensor("t", (2**63,), 0, 0)]), BadField, "outside 0"),
    "overflow": (raw_file([], [raw_tensor("t", (2**32, 2**32), 0, 0)]), BadField, "63 bits"),
    "row": (raw_file([], [raw_tensor("t", (33,), 8, 0)]), BadField, "Q8_0's blocks of 32"),
    "tensor type": (raw_file([], [raw_tensor("t", (4,), 99, 0)]), BadField, "unknown type 99"),
    "removed": (raw_file([], [raw_tensor("t", (4,), 31, 0)]), BadField, "Q4_0_4_4"),
    "offset": (raw_file([], [raw_tensor("t", (4,), 0, 8)], bytes(64)), BadField, "multiple of 32"),
    "end": (raw_file([], [ROW], bytes(15)), Truncated, "16 bytes from 64 on"),
    "far": (raw_file([], [raw_tensor("t", (4,), 0, 2**63)], bytes(64)), Truncated, "ends past"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_each_check_has_its_own_words(case: str) -> None:
    content, kind, words = MALFORMED[case]
    with pytest.raises(kind, match=words) as caught:
        GGUFReader.from_bytes(content, "m.gguf")
    message = str(caught.value)
    assert message.startswith("m.gguf: ")
    assert "\n" not in message
    assert caught.value.path == "m.gguf"
    assert kind is NotGGUF or isinstance(caught.value.offset, int)


def test_the_offset_is_that_of_the_fault() -> None:
    fields = [NAME, raw_field("k", 13, bytes(8))]
    with pytest.raises(BadField) as caught:
        GGUFReader.from_bytes(raw_file(fields))
    assert caught.value.offset == 24 + len(NAME) + 8 + 1
    texts = raw_string("ok") * 100 + struct.pack("<Q", 10**6)
    with pytest.raises(Truncated) as caught:
        GGUFReader.from_bytes(raw_file([raw_field("k", 9, raw_array(8, 101, texts))]))
    assert caught.value.offset == 24 + 8 + 1 + 4 + 12 + 100 * 10


@pytest.mark.parametrize("depth", [64, 65, 100_000])
def test_arrays_nest_to_a_limit(depth: int) -> None:
    payload = b"".join(raw_array(9, 1) for _ in range(depth - 1)) + raw_array(0, 1, b"\7")
    content = raw_file([raw_field("k", 9, payload)])
    if depth > 64:
        with pytest.raises(BadField, match="nest deeper than 64"):
            GGUFReader.from_bytes(content)
        return
    value = GGUFReader.from_bytes(content).metadata["k"]
    for _ in range(depth - 1):
        (value,) = value
    assert list(value) == [7]


def test_truth_values_in_arrays_are_checked_on_access() -> None:
    reader = GGUFReader.from_bytes(raw_file([raw_field("k", 9, raw_array(7, 3, b"\1\0\2"))]))
    assert reader.metadata["k"][:2] == [True, False]
    with pytest.raises(BadField, match="a truth value is 2"):
        list(reader.metadata["k"])


LIARS = {
    "strings": raw_field("k", 9, raw_array(8, 2**20 - 8)),
    "too many strings": raw_field("k", 9, raw_array(8, 2**62)),
    "numbers": raw_field("k", 9, raw_array(10, 2**62)),
    "one string": raw_field("k", 8, struct.pack("<Q", 2**40)),
    "arrays": raw_field("k", 9, raw_array(9, 2**20 // 12)),
    "arrays of arrays": raw_field("k", 9, raw_array(9, 2, raw_array(9, 2**20 // 12))),
}


@pytest.mark.parametrize("case", LIARS)
def test_lying_counts_cost_neither_time_nor_memory(case: str) -> None:
    padding = raw_array(8, 0) * 2**18 if "arrays" in case else bytes(2**23)
    content = raw_file([LIARS[case] + padding], n_fields=1000, n_tensors=1000)
    started = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(GGUFError):
            GGUFReader.from_bytes(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    assert time.perf_counter() - started < 30


@pytest.mark.parametrize(
    "key",
    [
        "general.architecture",
        "general.name",
        "general.file_type",
        "llama.block_count",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "llama.rope.freq_base",
        "llama.rope.scaling.type",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.chat_template",
        "tokenizer.chat_templates",
        "tokenizer.chat_template.tool_use",
        "split.count",
        "split.no",
    ],
)
@pytest.mark.parametrize(
    "value", ["text", -5, 2**63, 1.5, float("nan"), True, ["a"], [-1, 2], [[1]], [0.5]], ids=repr
)
def test_the_summary_takes_any_type_anywhere(tmp_path: Path, key: str, value: Any) -> None:
    path = write_llama(tmp_path / "m.gguf", **{key: value})
    assert survives(path.read_bytes())
    summary = GGUFReader.from_bytes(path.read_bytes()).summary
    assert all(isinstance(source, str) for source in summary.chat_templates.values())
    if key == "llama.block_count":
        assert summary.n_layer == (value if value == 2**63 else None)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(
    st.recursive(
        st.one_of(
            st.booleans(),
            st.integers(-(2**70), 2**70),
            st.floats(),
            st.text(),
            st.binary(),
            st.none(),
        ),
        lambda inner: st.lists(inner, max_size=4),
    )
)
def test_the_writer_raises_only_gguf_errors(value: Any) -> None:
    with suppress(GGUFError):
        GGUFWriter("unwritten.gguf").add("k", value)
