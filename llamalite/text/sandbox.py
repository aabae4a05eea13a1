"""The Jinja environment chat templates run in: Hugging Face's, with every operation metered.

Jinja's immutable sandbox keeps templates away from Python's internals, but not from the clock or
the memory. Here `instrument` puts charges in front of whatever repeats, and the environment's hooks
(calls, operators, filters, tests, output) charge what values cost. So no thread, signal or clock is
needed to end a hostile template. Prices are those of `charges` and `meter`.

Imports jinja2, the standard library and `llamalite.text`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateRuntimeError, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import (
    ImmutableSandboxedEnvironment,
    SandboxedEscapeFormatter,
    SandboxedFormatter,
)
from jinja2.utils import Namespace
from markupsafe import Markup

from llamalite.text import charges, instrument
from llamalite.text import meter as prices
from llamalite.text.meter import Meter, OverBudget

METER: ContextVar[Meter] = ContextVar("METER")
"""The running rendering's meter; set around every rendering."""

_Charge = Callable[[Meter, str, tuple[Any, ...], dict[str, Any]], tuple[Any, ...]]


class RaisedByTemplate(TemplateRuntimeError):
    """The template called raise_exception."""


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """Compile and run chat templates as transformers does, within the running meter's allowance."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # no filter or operator runs before there is a meter
            finalize=_printed,
            extensions=[GenerationBlock, LoopControlExtension],
        )
        self.concat = _join  # type: ignore[method-assign]
        del self.globals["lipsum"]
        self.globals.update(
            range=_range,
            dict=_DictMaker(),
            namespace=TemplateNamespace,
            raise_exception=_raise_exception,
            strftime_now=_strftime_now,
        )
        for name in charges.REMOVED_FILTERS:
            del self.filters[name]
        self.filters["tojson"] = _tojson
        _meter_all(self.filters, charges.charge_filter)
        _meter_all(self.tests, charges.charge_test)
        self.filters.update(_CHARGES)

    def metered(self, source: str) -> nodes.Template:
        """Parse a template and put the charges in; `from_string` takes the result."""
        tree = self.parse(source)
        instrument.instrument(tree)
        tree.set_environment(self)
        return tree

    def handle_exception(self, source: str | None = None) -> NoReturn:
        """Re-raise as it is: the caller makes one line of it and needs no rewritten traceback."""
        raise

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse private attributes at once, where Jinja waits for the value to be used."""
        if attribute.startswith("_"):
            raise SecurityError(f"it reads the private attribute {attribute!r}")
        return super().unsafe_undefined(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Subscribe; keys that may hold others are weighed, as they get hashed."""
        meter = METER.get()
        meter.charge(prices.NODE)
        if type(argument) not in (str, int):
            meter.weigh(argument)
        value = super().getitem(obj, argument)
        if isinstance(value, Undefined):  # three exceptions were raised to find that out
            meter.charge(8 * prices.STEP)
        return value

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate; integers stay within 61 bits."""
        prices.check_integer(left)
        prices.check_integer(right)
        charges.charge_operator(METER.get(), operator, left, right)
        result = super().call_binop(context, operator, left, right)
        prices.check_integer(result)
        return result

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call; macros, blocks and loops are charged by their bodies."""
        meter = METER.get()
        with meter.call():
            if not isinstance(obj, (Macro, LoopContext, BlockReference)):
                args = charges.charge_call(meter, obj, args, kwargs)
            return meter.settle(super().call(context, obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Replace `str.format` and `str.format_map` by metered ones."""
        if super().wrap_str_format(value) is None:
            return None
        text: str = value.__self__
        formatter = (
            _MeteredEscapeFormatter(self, escape=text.escape)
            if isinstance(text, Markup)
            else _MeteredFormatter(self)
        )

        def format_map(mapping: Mapping[str, Any]) -> str:
            return type(text)(formatter.vformat(text, (), mapping))

        def format_text(*args: Any, **kwargs: Any) -> str:
            return type(text)(formatter.vformat(text, args, kwargs))

        return format_map if value.__name__ == "format_map" else format_text


class GenerationBlock(Extension):
    """Render what stands in `{% generation %}`; transformers marks trained-on text with it."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        """Make a call block, as transformers does, so that names in it have the same scope."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("render"), [], [], body).set_lineno(line)

    def render(self, caller: Macro) -> str:
        """Return the block's own text."""
        return caller()


class TemplateNamespace(Namespace):
    """Jinja's namespace, refusing private names."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `namespace(self=...)` is legal
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_public(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


@prices.parts.register
def _(item: Namespace) -> Iterator[Any]:
    attributes: dict[str, Any] = object.__getattribute__(item, "_Namespace__attrs")
    return iter(attributes.values())


class _DictMaker:
    """`dict` without the attributes of a class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _MeteredFields:
    """Charge for each field of `str.format`."""

    def get_field(
        self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, str]:
        METER.get().charge(prices.STEP * len(field_name))
        return super().get_field(field_name, args, kwargs)  # type: ignore[misc,no-any-return]

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion is not None:
            METER.get().charge(4 * METER.get().weigh(value))
        return super().convert_field(value, conversion)  # type: ignore[misc]

    def format_field(self, value: Any, format_spec: str) -> str:
        meter = METER.get()
        meter.format_spec(format_spec)
        meter.charge(4 * meter.weigh(value))
        return super().format_field(value, format_spec)  # type: ignore[misc,no-any-return]


class _MeteredFormatter(_MeteredFields, SandboxedFormatter):
    pass


class _MeteredEscapeFormatter(_MeteredFields, SandboxedEscapeFormatter):
    pass


@pass_context
def _tick(context: Context, units: Any) -> bool:
    METER.get().charge(units if isinstance(units, int) else 1)
    return True


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    METER.get().weigh(value)
    return value


@pass_context
def _searched(context: Context, value: Any) -> Any:
    return charges.charge_search(METER.get(), value)


@pass_context
def _printed(context: Context, value: Any) -> str:
    return METER.get().text(value)


@pass_context
def _sliced(context: Context, value: Any) -> Any:
    if isinstance(value, (str, list, tuple)):
        METER.get().charge(len(value) if isinstance(value, str) else prices.SLOT * len(value))
    return value


_CHARGES: dict[str, Callable[..., Any]] = {
    instrument.TICK: _tick,
    instrument.WEIGHED: _weighed,
    instrument.SEARCHED: _searched,
    instrument.PRINTED: _printed,
    instrument.SLICED: _sliced,
}


def _meter_all(functions: dict[str, Any], charge: _Charge) -> None:
    for name, function in functions.items():
        functions[name] = _metered(function, charge, name)


def _metered(function: Callable[..., Any], charge: _Charge, name: str) -> Callable[..., Any]:
    """Wrap a filter or test; that it takes the context keeps Jinja from folding it early."""
    wants_context = hasattr(function, "jinja_pass_arg")

    @pass_context
    def metered(context: Context, *args: Any, **kwargs: Any) -> Any:
        meter = METER.get()
        args = charge(meter, name, args, kwargs)
        if wants_context:
            return meter.settle(context.call(function, *args, **kwargs))
        return meter.settle(function(*args, **kwargs))

    return metered


def _join(pieces: Iterable[str]) -> str:
    return METER.get().join(pieces)


def _check_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores the private name {name!r} in a namespace")


def _range(*args: int) -> range:
    numbers = range(*args)
    for bound in (numbers.start, numbers.stop, numbers.step):
        prices.check_integer(bound)
    if len(numbers) > prices.MAX_RANGE:
        raise OverBudget(f"it asks for a range of more than {prices.MAX_RANGE} numbers")
    return numbers


def _raise_exception(message: Any) -> NoReturn:
    raise RaisedByTemplate(METER.get().text(message))


def _strftime_now(pattern: str) -> str:
    METER.get().width(len(pattern))
    return datetime.now().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers does: no HTML escapes, no ASCII escapes."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
