from __future__ import annotations

import pytest

from llamalite.errors import AmbiguousFile, ModelNotFound
from llamalite.models.names.reference import HubReference, parse_reference, pick_file, shard_names

FILES = [
    "README.md",
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "m.q8_0.gguf",
    "m_F16.gguf",
    "mmproj-m-Q4_K_M.gguf",
    "BF16/m-BF16-00001-of-00002.gguf",
    "BF16/m-BF16-00002-of-00002.gguf",
    "a-Q5_0.gguf",
    "b-Q5_0.gguf",
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("o/r:Q4_K_M", HubReference("o/r", quant="Q4_K_M")),
        ("hf:o/r.x:q8_0", HubReference("o/r.x", quant="q8_0", explicit=True)),
        ("HF://o/r/sub/m.gguf", HubReference("o/r", file="sub/m.gguf", explicit=True)),
        ("o/r/m.GGUF", HubReference("o/r", file="m.GGUF")),
        ("hf:o/r", HubReference("o/r", explicit=True)),
        ("hf:o/r.gguf", HubReference("o/r.gguf", explicit=True)),
        ("o/m.gguf", None),
        ("./o/r/m.gguf", None),
        ("../o/m.gguf", None),
        ("/o/r/m.gguf", None),
        ("~/o/m.gguf", None),
        ("hf:o/r/../../m.gguf", None),
        ("C:/o/m.gguf", None),
        ("o\\r\\m.gguf", None),
        ("smollm2:135m", None),
        ("o/r:", None),
    ],
)
def test_references_are_told_from_paths(name: str, expected: HubReference | None) -> None:
    assert parse_reference(name) == expected


@pytest.mark.parametrize(
    ("quant", "expected"),
    [
        ("q4_k_m", "m-Q4_K_M.gguf"),
        ("Q4_K_S", "m-Q4_K_S.gguf"),
        ("Q8_0", "m.q8_0.gguf"),
        ("f16", "m_F16.gguf"),
        ("bf16", "BF16/m-BF16-00001-of-00002.gguf"),
    ],
)
def test_a_quantization_matches_one_file_whatever_its_case(quant: str, expected: str) -> None:
    assert pick_file(FILES, HubReference("o/r", quant=quant)) == expected


@pytest.mark.parametrize("quant", ["Q4_K", "K_M", "4_K_M", "Q4", ".*", "README"])
def test_a_part_of_a_quantization_matches_nothing(quant: str) -> None:
    with pytest.raises(ModelNotFound, match=r"o/r has no GGUF file for .* it has .*m-Q4_K_M.gguf"):
        pick_file(FILES, HubReference("o/r", quant=quant))


def test_several_matches_are_listed() -> None:
    with pytest.raises(AmbiguousFile, match=r"a-Q5_0.gguf, b-Q5_0.gguf"):
        pick_file(FILES, HubReference("o/r", quant="Q5_0"))


def test_any_part_of_a_split_model_names_them_all() -> None:
    names = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
    assert shard_names("m-00002-of-00003.gguf") == names
    assert shard_names("m-00002-of-3.gguf") == ["m-00002-of-3.gguf"]
    assert shard_names("m-00000-of-00000.gguf") == ["m-00000-of-00000.gguf"]
    reference = HubReference("o/r", file="BF16/m-BF16-00002-of-00002.gguf")
    assert pick_file(FILES, reference) == "BF16/m-BF16-00001-of-00002.gguf"
