"""What opencode's configuration classes have in common: fields checked when made, and a dump.

Owns the kinds of fields that `llamalite.config.fields` doesn't have. May import `config` and
`errors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from llamalite.config.fields import check_fields, shown
from llamalite.config.places import user_path
from llamalite.errors import InvalidParameter

V = TypeVar("V", bound="View")
E = TypeVar("E", bound=Enum)


class View:
    """Base of dataclasses that are opencode's names for something of llamalite's."""

    def __post_init__(self) -> None:
        for spec in fields(self):  # type: ignore[arg-type] # subclasses are dataclasses
            read = spec.metadata.get("read")
            value = getattr(self, spec.name)
            if value is ...:  # as documentation writes what doesn't matter: the default
                value = spec.default if spec.default_factory is MISSING else spec.default_factory()
                setattr(self, spec.name, value)
            if value is None and "none_as" in spec.metadata:
                setattr(self, spec.name, spec.metadata["none_as"])
            elif read is not None and not (value is None and spec.default is None):
                setattr(self, spec.name, read(spec.name, value))
        check_fields(self)

    def model_dump(self, *, mode: str = "python", exclude_none: bool = False) -> dict[str, Any]:
        """Return the fields as a dict, those of views within too.

        Args:
            mode: "json" turns paths and enum members into text, "python" leaves them.
            exclude_none: leave out what is None.
        """
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}  # type: ignore[arg-type]
        return {
            name: _dumped(value, mode, exclude_none)
            for name, value in values.items()
            if not (exclude_none and value is None)
        }


def _dumped(value: Any, mode: str, exclude_none: bool) -> Any:
    if isinstance(value, View):
        return value.model_dump(mode=mode, exclude_none=exclude_none)
    if isinstance(value, list | dict):
        return value.copy()
    if mode == "json" and isinstance(value, Enum):
        return value.value
    return str(value) if mode == "json" and isinstance(value, Path) else value


def required(like: Any) -> Any:
    """Make a field that must be given, checked as another one."""
    return field(metadata=like.metadata)


def place(default: str | None) -> Any:
    """Make a field for a path, `~` replaced."""
    return field(default=default, metadata={"read": _read_path})


def _read_path(name: str, value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise InvalidParameter(f"{name} must be a path, not {shown(value)}", param=name)
    return user_path(str(value), name)


def member(kind: type[E], default: E | None) -> Any:
    """Make a field for a member of an enum, which its value stands for too."""

    def read(name: str, value: Any) -> E:
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(each.value for each in kind)
            raise InvalidParameter(
                f"{name} must be one of {known}, not {shown(value)}", param=name
            ) from None

    return field(default=default, metadata={"read": read})


def strings(*default: str) -> Any:
    """Make a field for a list of strings."""
    return field(default_factory=lambda: [*default], metadata={"read": _read_strings})


def _read_strings(name: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise InvalidParameter(f"{name} must be a list of strings, not {shown(value)}", param=name)
    return list(value)


def names() -> Any:
    """Make a field for a mapping from strings to strings."""
    return field(default_factory=dict, metadata={"read": _read_names})


def _read_names(name: str, value: Any) -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else [(None, None)]
    if not all(isinstance(item, str) for pair in pairs for item in pair):
        raise InvalidParameter(
            f"{name} must map strings to strings, not be {shown(value)}", param=name
        )
    return dict(value)


def nested(kind: type[V]) -> Any:
    """Make a field for another view, which a dict of its fields stands for too."""

    def read(name: str, value: Any) -> V:
        known = [spec.name for spec in fields(kind)]  # type: ignore[arg-type]
        if isinstance(value, Mapping) and set(value) <= set(known):
            return kind(**value)
        if not isinstance(value, kind):
            raise InvalidParameter(
                f"{name} must be a {kind.__name__} or its fields ({', '.join(known)}), not "
                f"{shown(value)}",
                param=name,
            )
        return value

    return field(default_factory=kind, metadata={"read": read})
