"""What a GGUF file's name says: its quantization, and whether it is a model at all.

Owns the many ways the Hub's publishers name their files. Pure: touches neither disk nor network.
Imports the standard library alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

_SCHEME = (
    # Q4_K_M, IQ4_XS, TQ1_0, Q8_K_XL; Q4_0_4_4; ik_llama.cpp's IQ4_KSS_R4; a bare Q4 is Phi-3's.
    r"[IT]?Q[1-8](?:_[01]|(?:_(?:K(?:SS|[SLT])?|XX?[SL]|[SML]|NL|R[48]))+)?(?:_[48]_[48])?"
    r"|I2_S|TL[12]"  # BitNet's own
    r"|(?:BF|FP?)16|FP?32|FP8"
    r"|(?:MX|NV)FP4(?:_MOE)?"
)
_VARIANT = r"UD|I1"
_LABEL = re.compile(
    rf"(?<![a-z0-9])(?:(?P<variant>{_VARIANT})[-_.])?(?P<scheme>{_SCHEME})(?![a-z0-9])",
    re.IGNORECASE,
)
_SPELLINGS = {"FP16": "F16", "FP32": "F32"}
_SUFFIX = re.compile(r"(?:-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
_PROJECTOR = re.compile(r"(?<![a-z0-9])mmproj(?![a-z0-9])", re.IGNORECASE)
_NO_MODEL = re.compile(r"(?<![a-z])(?:imatrix|ggml-vocab)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Quantization:
    """How a model's weights are stored, in its usual spelling.

    Attributes:
        scheme: upper case, such as "Q4_K_M"; "F16" also for files that say FP16.
        variant: "UD" or "i1" where the name has that before the scheme (publishers' own mixtures,
            or weights chosen with an importance matrix), else "".
    """

    scheme: str
    variant: str = ""

    def __str__(self) -> str:
        return f"{self.variant}-{self.scheme}" if self.variant else self.scheme

    @property
    def bits(self) -> float:
        """Bits per weight, about; exact enough to tell which of two is larger."""
        if self.scheme in _BITS:
            return _BITS[self.scheme]
        digits = re.search(r"\d+", self.scheme)
        return float(digits[0]) + 0.6 if digits else 16.0


def read_quantization(path: str) -> Quantization | None:
    """Return the quantization that a file's name gives, or else the nearest folder's, or None.

    Of several in one name the last counts: "m-F16-Q4_K_M.gguf" was F16 once.
    """
    parts = PurePosixPath(path).parts
    if not parts:
        return None
    for name in (_SUFFIX.sub("", parts[-1]), *reversed(parts[:-1])):
        if found := list(_LABEL.finditer(name)):
            return _spelled(found[-1])
    return None


def parse_quantization(text: str) -> Quantization | None:
    """Return the quantization that a user's word names, whatever its case, or None."""
    match = _LABEL.fullmatch(text.strip())
    return _spelled(match) if match else None


def is_projector(path: str) -> bool:
    """Say whether a file is a multimodal projector, which goes with a model and is none."""
    return _is_gguf(path) and _PROJECTOR.search(PurePosixPath(path).name) is not None


def is_model(path: str) -> bool:
    """Say whether a file is a model, or a part of one, by its name."""
    if not _is_gguf(path) or is_projector(path):
        return False
    # An importance matrix's own file has no quantization; a model made with one may say "imatrix".
    name = PurePosixPath(path).name
    return _NO_MODEL.search(name) is None or read_quantization(name) is not None


def bare_name(path: str) -> str:
    """Return a file's name in lower case without what tells quantization, part and projector.

    Empty where nothing else is left, or only "model".
    """
    stem = _SUFFIX.sub("", PurePosixPath(path).name.lower())
    rest = _PROJECTOR.sub("", _LABEL.sub("", stem)).strip("-._")
    return "" if rest == "model" else rest


def _spelled(match: re.Match[str]) -> Quantization:
    scheme = match["scheme"].upper()
    variant = (match["variant"] or "").upper()
    return Quantization(_SPELLINGS.get(scheme, scheme), "i1" if variant == "I1" else variant)


def _is_gguf(path: str) -> bool:
    return path.lower().endswith(".gguf")


# Source: llama.cpp tools/quantize/README.md (Llama 3.1 8B), and the block sizes of ggml.h for the
# types it doesn't list.
_BITS = {
    "Q1_0": 1.13,
    "TQ1_0": 1.69,
    "IQ1_S": 2.00,
    "TQ2_0": 2.06,
    "IQ1_M": 2.15,
    "Q2_0": 2.25,
    "IQ2_XXS": 2.38,
    "IQ2_XS": 2.59,
    "IQ2_S": 2.74,
    "IQ2_M": 2.93,
    "Q2_K_S": 2.97,
    "Q2_K": 3.16,
    "IQ3_XXS": 3.25,
    "IQ3_XS": 3.50,
    "Q3_K_S": 3.64,
    "IQ3_S": 3.66,
    "IQ3_M": 3.76,
    "Q3_K": 4.00,
    "Q3_K_M": 4.00,
    "MXFP4": 4.25,
    "MXFP4_MOE": 4.25,
    "Q3_K_L": 4.30,
    "IQ4_XS": 4.46,
    "NVFP4": 4.50,
    "Q4_0": 4.66,
    "Q4_K_S": 4.67,
    "IQ4_NL": 4.68,
    "Q4": 4.89,
    "Q4_K": 4.89,
    "Q4_K_M": 4.89,
    "Q4_K_L": 5.0,
    "Q4_K_XL": 5.05,
    "Q4_1": 5.13,
    "Q5_0": 5.59,
    "Q5_K_S": 5.57,
    "Q5_K": 5.70,
    "Q5_K_M": 5.70,
    "Q5_1": 6.05,
    "Q6_K": 6.56,
    "Q8_0": 8.50,
    "FP8": 8.0,
    "F16": 16.0,
    "BF16": 16.0,
    "F32": 32.0,
    "I2_S": 2.0,
    "TL1": 1.7,
    "TL2": 1.7,
}
