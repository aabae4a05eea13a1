from __future__ import annotations

import pytest

from llamalite.models.names.reference import HubReference, parse_reference, shard_names


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
        ("o/r/../../m.gguf", None),
        ("o/r@v1.0", HubReference("o/r", revision="v1.0")),
        ("o/r:Q4_K_M@refs/pr/1", HubReference("o/r", quant="Q4_K_M", revision="refs/pr/1")),
        ("hf:o/r/s/m.gguf@main", HubReference("o/r", None, "s/m.gguf", True, "main")),
        ("o/r/m@1.gguf", HubReference("o/r", file="m@1.gguf")),
        ("o/r/m@1.gguf@x.gguf", HubReference("o/r", file="m@1.gguf", revision="x.gguf")),
        ("hf.co/o/r:Q8_0", HubReference("o/r", "Q8_0", explicit=True)),
        ("HuggingFace.co/o/r", HubReference("o/r", explicit=True)),
        ("https://huggingface.co/o/r/", HubReference("o/r", explicit=True)),
        ("https://hf.co/o/r?library=x", HubReference("o/r", explicit=True)),
        ("http://hf.co/o/r/tree/v1", HubReference("o/r", None, None, True, "v1")),
        (
            "https://huggingface.co/o/r/resolve/refs%2Fpr%2F1/s/m%20x.gguf?download=true",
            HubReference("o/r", None, "s/m x.gguf", True, "refs/pr/1"),
        ),
        (
            "https://huggingface.co/o/r/blob/main/m.gguf#L1",
            HubReference("o/r", None, "m.gguf", True, "main"),
        ),
        ("https://huggingface.co/datasets/o/r/resolve/main/m.gguf", None),
        ("https://huggingface.co/o/r/resolve/main/m.bin", None),
        ("https://example.org/o/r/m.gguf", None),
        ("o/r:latest", HubReference("o/r")),
        ("hf:o/r:LATEST@v1", HubReference("o/r", explicit=True, revision="v1")),
        ("o/r@", None),
        ("ö/r:Q8_0", None),
        ("C:/o/m.gguf", None),
        ("o\\r\\m.gguf", None),
        ("smollm2:135m", None),
        ("o/r:", None),
        ("o/r:" + "x" * 100, None),
        ("o/" + "x" * 100, None),
        ("x" * 100 + "/r", None),
        ("o/r@" + "x" * 300, None),
        ("o/r/" + "x/" * 600 + "m.gguf", None),
    ],
)
def test_references_are_told_from_paths(name: str, expected: HubReference | None) -> None:
    assert parse_reference(name) == expected


def test_any_part_of_a_split_model_names_them_all() -> None:
    names = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
    assert shard_names("m-00002-of-00003.gguf") == names
    assert shard_names("m-00002-of-3.gguf") == ["m-00002-of-3.gguf"]
    assert shard_names("m-00000-of-00000.gguf") == ["m-00000-of-00000.gguf"]


def test_a_reference_is_written_as_it_is_read() -> None:
    for name in ("o/r", "o/r:Q8_0", "o/r/s/m.gguf", "o/r@v1", "o/r:Q8_0@refs/pr/1", "o/r/m.gguf@v"):
        reference = parse_reference(name)
        assert str(reference) == name
