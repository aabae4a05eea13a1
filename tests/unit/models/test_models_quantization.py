from __future__ import annotations

import pytest

from llamalite.errors import AmbiguousFile, ModelNotFound
from llamalite.gguf.constants import FILE_TYPES
from llamalite.models.names.quantization import (
    Quantization,
    is_model,
    is_projector,
    parse_quantization,
    read_quantization,
)
from llamalite.models.names.repository import (
    Choice,
    RepoFile,
    RepoModel,
    choose_model,
    group_models,
)

REPO = "o/r"


def models(*paths: str, n_bytes: int | None = None) -> list[RepoModel]:
    return group_models(RepoFile(path, n_bytes) for path in paths)


def sized(**sizes: int) -> list[RepoModel]:
    return group_models(RepoFile(f"m-{quant}.gguf", size) for quant, size in sizes.items())


def chosen(there: list[RepoModel], wanted: str | None = None, **how: int) -> str:
    return choose_model(there, wanted, REPO, **how).model.file


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("SmolLM2-135M-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf", "Q4_K_M"),
        ("m_Q4_K_M.gguf", "Q4_K_M"),
        ("Q8_0.gguf", "Q8_0"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("Phi-3-mini-4k-instruct-fp16.gguf", "F16"),
        ("ggml-model-f16.gguf", "F16"),
        ("m-F32.gguf", "F32"),
        ("m-BF16.gguf", "BF16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("Qwen3-30B-A3B-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("m-NVFP4.gguf", "NVFP4"),
        ("m-IQ4_XS.gguf", "IQ4_XS"),
        ("m-IQ2_XXS.gguf", "IQ2_XXS"),
        ("m-Q3_K_XL.gguf", "Q3_K_XL"),
        ("m-Q6_K_L.gguf", "Q6_K_L"),
        ("m-Q6_K.gguf", "Q6_K"),
        ("m-TQ1_0.gguf", "TQ1_0"),
        ("m-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("m-Q4_0_8_8.gguf", "Q4_0_8_8"),
        ("m-IQ4_KSS_R4.gguf", "IQ4_KSS_R4"),
        ("ggml-model-i2_s.gguf", "I2_S"),
        ("Qwen3-4B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("Qwen3.6-35B-A3B-UD-IQ4_NL_XL.gguf", "UD-IQ4_NL_XL"),
        ("Mistral-Nemo-Instruct-2407.i1-IQ1_S.gguf", "i1-IQ1_S"),
        ("gemma-3-4b-it-qat-q4_0.gguf", "Q4_0"),
        ("m-F16-Q4_K_M.gguf", "Q4_K_M"),
        ("m-Q4_K_M-imat.gguf", "Q4_K_M"),
        ("m-Q4_K_M_v2.gguf", "Q4_K_M"),
        ("m-Q4_K_M_001.gguf", "Q4_K_M"),
        ("m-Q1_0_g128.gguf", "Q1_0"),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("DeepSeek-R1-UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"),
        ("Q4_K_M/m-00001-of-00002.gguf", "Q4_K_M"),
        ("Q4_K_M/m-Q8_0.gguf", "Q8_0"),
        ("F16/Q4_K_M/m.gguf", "Q4_K_M"),
        ("gguf/fp16/model.gguf", "F16"),
        ("model.gguf", None),
        ("Qwen3-4B.gguf", None),
        ("m-q4f16_1.gguf", None),
        ("unseq4_k.gguf", None),
        ("", None),
    ],
)
def test_quantizations_are_read_from_names(path: str, expected: str | None) -> None:
    found = read_quantization(path)
    assert (str(found) if found else None) == expected


@pytest.mark.parametrize("name", sorted(set(FILE_TYPES.values())))
def test_every_scheme_of_the_format_is_read_whole(name: str) -> None:
    for path in (f"m-{name}.gguf", f"m.{name.lower()}.gguf", f"{name}/m.gguf"):
        assert read_quantization(path) == Quantization(name)
    assert parse_quantization(name.lower()) == Quantization(name)
    assert read_quantization(f"m{name}x.gguf") is None


@pytest.mark.parametrize("text", ["", "K_M", "4_K_M", "Q4_K_M.gguf", ".*", "latest", "7b", "Q9_0"])
def test_other_words_are_no_quantization(text: str) -> None:
    assert parse_quantization(text) is None


def test_schemes_are_ordered_by_their_size() -> None:
    # As Llama 3.1 8B's files are.
    schemes = (
        "IQ1_S IQ2_XXS Q2_K IQ3_M Q3_K_M IQ4_XS Q4_K_S Q4_K_M Q4_K_XL Q5_K_M Q6_K Q8_0 F16 F32"
    )
    bits = [Quantization(scheme).bits for scheme in schemes.split()]
    assert bits == sorted(bits)
    unlisted = Quantization("Q6_K_XL").bits
    assert Quantization("Q5_K_M").bits < unlisted < Quantization("Q8_0").bits


@pytest.mark.parametrize(
    "path",
    [
        "mmproj-model-f16.gguf",
        "mmproj-BF16.gguf",
        "mmproj.gguf",
        "sub/Qwen2.5-VL-7B-Instruct-mmproj-f16.gguf",
        "MMPROJ-m-Q8_0.GGUF",
        "m.mmproj-Q8_0.gguf",
    ],
)
def test_projectors_are_recognised_and_are_no_models(path: str) -> None:
    assert is_projector(path)
    assert not is_model(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("m.gguf", True),
        ("M.GGUF", True),
        ("m-Q4_K_M-imatrix.gguf", True),
        ("mmprojector-Q4_0.gguf", True),
        ("imatrix.gguf", False),
        ("imatrix_unsloth.gguf", False),
        ("m.imatrix.gguf", False),
        ("Q4_K_M/imatrix.gguf", False),
        ("ggml-vocab-llama-bpe.gguf", False),
        ("m-Q4_K_M.gguf.part1of2", False),
        ("README.md", False),
    ],
)
def test_models_are_told_from_what_lies_beside_them(path: str, expected: bool) -> None:
    assert is_model(path) is expected
    assert not is_projector(path)


def test_a_listing_becomes_models() -> None:
    listing = {
        "README.md": 10,
        "m-Q8_0.gguf": 800,
        "m-Q4_K_M.gguf": 400,
        "mmproj-F16.gguf": 50,
        "mmproj-F32.gguf": 90,
        "BF16/m-BF16-00002-of-00002.gguf": 900,
        "BF16/m-BF16-00001-of-00002.gguf": 700,
        "imatrix_unsloth.gguf": 5,
    }
    found = group_models(RepoFile(path, size) for path, size in listing.items())
    bf16 = ("BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf")
    assert [(m.parts, str(m.quantization), m.n_bytes, m.projector) for m in found] == [
        (("m-Q4_K_M.gguf",), "Q4_K_M", 400, "mmproj-F16.gguf"),
        (("m-Q8_0.gguf",), "Q8_0", 800, "mmproj-F16.gguf"),
        (bf16, "BF16", 1600, "mmproj-F16.gguf"),
    ]


def test_sizes_that_are_not_known_make_no_sum() -> None:
    parts = [RepoFile("m-00001-of-00002.gguf", 5), RepoFile("m-00002-of-00002.gguf")]
    assert group_models(parts)[0].n_bytes is None


def test_a_projector_goes_with_its_own_model() -> None:
    found = models(
        "a-Q4_K_M.gguf",
        "b-Q4_K_M.gguf",
        "c-Q4_K_M.gguf",
        "mmproj-a-f16.gguf",
        "mmproj-a-Q8_0.gguf",
        "b-mmproj-Q8_0.gguf",
    )
    assert [model.projector for model in found] == [
        "mmproj-a-f16.gguf",
        "b-mmproj-Q8_0.gguf",
        None,
    ]
    lone = models("gemma-3-4b-it-Q4_K_M.gguf", "mmproj-gemma3-4b-f16.gguf")
    assert lone[0].projector == "mmproj-gemma3-4b-f16.gguf"
    nearer = models("x/m-Q8_0.gguf", "x/mmproj-F32.gguf", "mmproj-F16.gguf", "y/mmproj-F16.gguf")
    assert nearer[0].projector == "x/mmproj-F32.gguf"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q4_k_s", "m-Q4_K_S.gguf"),
        ("Q4_k_Xl", "m-UD-Q4_K_XL.gguf"),
        ("ud-q4_k_xl", "m-UD-Q4_K_XL.gguf"),
        ("UD-Q4_K_M", "m-UD-Q4_K_M.gguf"),
        ("fp16", "m-F16.gguf"),
        ("iq1_s", "m.i1-IQ1_S.gguf"),
        ("I1-IQ1_S", "m.i1-IQ1_S.gguf"),
    ],
)
def test_a_quantization_matches_whole_whatever_its_case(wanted: str, expected: str) -> None:
    there = models(
        "m-Q4_K_M.gguf",
        "m-Q4_K_S.gguf",
        "m-UD-Q4_K_M.gguf",
        "m-UD-Q4_K_XL.gguf",
        "m-F16.gguf",
        "m-BF16.gguf",
        "m.i1-IQ1_S.gguf",
    )
    assert chosen(there, wanted) == expected


@pytest.mark.parametrize("wanted", ["Q4_K", "Q4", "Q4_K_L", "i1-Q4_K_M", "K_M", "latest"])
def test_a_quantization_that_is_not_there_lists_those_that_are(wanted: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        choose_model(models("m-Q4_K_M.gguf", "m-UD-Q8_0.gguf"), wanted, REPO)
    assert str(caught.value) == f"o/r has no GGUF file for {wanted}; it has Q4_K_M, UD-Q8_0"


def test_two_models_of_one_quantization_are_listed() -> None:
    there = models("a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "sub/b-Q4_K_M-00001-of-00001.gguf")
    for wanted in ("q4_k_m", None):
        with pytest.raises(AmbiguousFile, match=r"any of a-Q4_K_M\.gguf, b-Q4_K_M\.gguf, sub/b"):
            choose_model(there, wanted, REPO)


def test_parts_that_are_missing_are_named_and_never_the_default() -> None:
    there = models("m-Q4_K_M-00002-of-00002.gguf", "m-Q8_0.gguf")
    assert there[0].missing == ("m-Q4_K_M-00001-of-00002.gguf",)
    assert chosen(there) == "m-Q8_0.gguf"
    with pytest.raises(ModelNotFound, match=r"m-Q4_K_M-00001-of-00002.gguf is missing from o/r"):
        choose_model(there, "Q4_K_M", REPO)


def test_the_default_is_q4_k_m_then_q4_0() -> None:
    there = sized(Q2_K=200, Q4_0=390, Q4_K_M=400_000_000, Q8_0=800)
    assert choose_model(there, None, REPO) == Choice(
        there[2], "taking Q4_K_M (400.0 MB), the default"
    )
    assert choose_model(sized(Q4_0=390, Q8_0=800), None, REPO).reason == (
        "taking Q4_0 (390 bytes), o/r has no Q4_K_M"
    )
    assert chosen(models("m.i1-Q4_K_M.gguf", "m.i1-Q4_0.gguf")) == "m.i1-Q4_K_M.gguf"
    assert chosen(models("m-UD-Q4_K_M.gguf", "m-Q4_K_M.gguf")) == "m-Q4_K_M.gguf"


def test_a_lone_model_is_taken_whatever_it_is() -> None:
    choice = choose_model(models("m.gguf", "mmproj.gguf"), None, REPO)
    assert choice.reason == "taking m.gguf, the only model in o/r"
    assert choice.model.projector == "mmproj.gguf"


def test_without_a_default_the_nearest_that_fits_is_taken() -> None:
    there = sized(Q2_K=2_000, Q3_K_M=3_000, Q5_K_M=5_000, Q8_0=8_000)
    assert chosen(there) == "m-Q5_K_M.gguf"
    choice = choose_model(there, None, REPO, free_bytes=4_000)
    assert choice.model.file == "m-Q3_K_M.gguf"
    assert choice.fits
    assert choice.reason == (
        "taking Q3_K_M (3.0 kB), the nearest to Q4_K_M among those that fit in memory, as o/r has "
        "neither Q4_K_M nor Q4_0"
    )
    assert chosen(there, free_bytes=2_500) == "m-Q2_K.gguf"
    assert chosen(models("m-UD-Q5_K_M.gguf", "m-Q5_K_M.gguf")) == "m-Q5_K_M.gguf"


def test_what_does_not_fit_is_said() -> None:
    there = sized(Q2_K=2_000_000_000, Q8_0=8_000_000_000)
    choice = choose_model(there, None, REPO, free_bytes=500_000_000)
    assert choice.model.file == "m-Q2_K.gguf"
    assert not choice.fits
    assert choice.reason == (
        "taking Q2_K (2.0 GB), the smallest, as o/r has neither Q4_K_M nor Q4_0, though its "
        "2.0 GB are more than the 500.0 MB of memory free"
    )
    assert not choose_model(sized(Q4_K_M=9), None, REPO, free_bytes=8).fits
    assert not choose_model(there, "q8_0", REPO, free_bytes=4_000_000_000).fits
    assert choose_model(there, "q8_0", REPO, free_bytes=8_000_000_000).fits


def test_repositories_without_a_choice_are_errors() -> None:
    with pytest.raises(ModelNotFound, match="o/r has no GGUF model"):
        choose_model(models("README.md", "mmproj-F16.gguf"), None, REPO)
    with pytest.raises(AmbiguousFile, match=r"tell no quantization \(a.gguf, b.gguf\)"):
        choose_model(models("a.gguf", "b.gguf"), None, REPO)
    with pytest.raises(ModelNotFound, match="it has none at all"):
        choose_model([], "Q4_0", REPO)
