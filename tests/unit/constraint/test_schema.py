"""Every keyword is enforced, annotates, or is refused by its pointer."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from llamalite.constraint.schema import MAX_DEPTH, clean_schema
from llamalite.constraint.schema_keywords import ANNOTATIONS, ENFORCED, REFUSED
from llamalite.errors import ConstraintError

SCHEMAS = Path(__file__).parents[3] / "benchmarks" / "schemas"


def clean(schema: Any) -> dict[str, Any]:
    return clean_schema(json.dumps(schema)).to_dict()


def refusal(schema: Any) -> str:
    with pytest.raises(ConstraintError) as caught:
        clean(schema)
    assert caught.value.param == "json_schema"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def inside(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a/b": {"items": schema}}}


REFUSALS = {
    "misspelt": ({"maxLenght": 3}, "/maxLenght: no such keyword; did you mean maxLength?"),
    "miscased": ({"maxlength": 3}, "/maxlength: no such keyword; did you mean maxLength?"),
    "unknown": ({"zzz": 3}, "/zzz: no such keyword"),
    "unknown type": ({"type": "strng"}, '/type: "strng" is no type; did you mean string?'),
    "type of types": ({"type": {"a": 1}}, '/type: {"a": 1} is no type'),
    "no types": ({"type": []}, "/type: an empty list"),
    "unique items": ({"uniqueItems": True}, "/uniqueItems: can't be enforced"),
    "nullable": (
        {"nullable": True},
        "/nullable: can't be enforced while a text is written: use \"",
    ),
    "format": ({"format": "emial"}, '/format: the format "emial" can\'t be enforced; did you mean'),
    "format's type": ({"format": 3}, "/format: the name of a format is wanted, not the number 3"),
    "negative count": ({"minLength": -1}, "/minLength: a whole number from 0 on"),
    "broken count": ({"maxItems": 1.5}, "/maxItems: a whole number from 0 on"),
    "count's type": ({"maxItems": True}, "/maxItems: a whole number from 0 on"),
    "huge lower bound": ({"minimum": 2**60}, "/minimum: 1152921504606846976 is beyond ±2^53"),
    "bound's type": ({"maximum": "3"}, "/maximum: a number is wanted, not a string"),
    "old exclusive": ({"exclusiveMinimum": True, "minimum": 1}, "/exclusiveMinimum: a number"),
    "multiple of 0": ({"multipleOf": 0}, "/multipleOf: 0 is not above 0"),
    "inexact literal": ({"enum": [1, [2**53 + 1]]}, "/enum/1/0: 9007199254740993 is beyond"),
    "control character": ({"const": {"k": "a\x01"}}, "/const/k: holds the control character"),
    "empty enum": ({"enum": []}, "/enum: a list of values is wanted, not an empty list"),
    "empty choices": ({"anyOf": []}, "/anyOf: a list of schemas is wanted, not an empty list"),
    "choices' type": ({"oneOf": {}}, "/oneOf: a list of schemas is wanted"),
    "no schema": ({"items": 3}, "/items: a schema is an object, true or false, not the number 3"),
    "list of items": ({"items": [{}]}, "/items: a list of schemas is written prefixItems"),
    "additional items": ({"additionalItems": False}, "/additionalItems: no such keyword since"),
    "properties' type": ({"properties": [1]}, "/properties: an object of schemas"),
    "required's type": ({"required": "a"}, "/required: a list of property names"),
    "pattern's type": ({"pattern": 1}, "/pattern: a regular expression is wanted"),
    "many free names": ({"minProperties": 3, "required": ["a"]}, "/minProperties: that so many"),
    "names twice": ({"minProperties": 3, "required": ["a", "a"]}, "/minProperties: that so many"),
    "no such target": ({"$ref": "#/$defs/x"}, '/$ref: "#/$defs/x" leads to nothing'),
    "no such anchor": ({"$ref": "#there"}, '/$ref: "#there" leads to nothing'),
    "another document": ({"$ref": "http://a/b#/c"}, '/$ref: "http://a/b" lies outside'),
    "reference's type": ({"$ref": 1}, "/$ref: a reference is a string"),
}


@pytest.mark.parametrize(("schema", "said"), REFUSALS.values(), ids=REFUSALS)
def test_refusals_name_the_pointer(schema: dict[str, Any], said: str) -> None:
    assert refusal(schema).startswith(said)
    assert refusal(inside(schema)).startswith("/properties/a~1b/items" + said)


@pytest.mark.parametrize("keyword", sorted(REFUSED))
def test_what_cant_be_enforced_is_refused_with_advice(keyword: str) -> None:
    assert refusal({"allOf": [{keyword: {}}]}).startswith(f"/allOf/0/{keyword}: can't be enforced")


def test_annotations_ask_nothing() -> None:
    notes: dict[str, Any] = dict.fromkeys(ANNOTATIONS - {"$schema"}, "anything")
    assert clean({**notes, "x-internal": {"maxLenght": 1}, "type": "null"}) == {"type": "null"}


def test_llguidance_takes_no_orders_from_a_schema() -> None:
    assert clean({"x-guidance": {"lenient": True}, "type": "null"}) == {"type": "null"}


UNREADABLE = {
    "{": "no JSON",
    "": "no JSON",
    '{"minimum": NaN}': "NaN is no JSON number",
    '{"type": "null", "type": "string"}': "'type' stands twice",
    '{"const": "\\ud800"}': "half a character",
    "\ud800": "half of one",
    "[" * 100_000: "nested too deeply",
    '{"items":' * 5000 + "1" + "}" * 5000: "nested too deeply",
    '{"title": "' + "x" * 2**20 + '"}': "at most 1048576",
    "1" * 5000: "no JSON|is an object",
}


@pytest.mark.parametrize("text", UNREADABLE, ids=range(len(UNREADABLE)))
def test_what_is_no_schema_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConstraintError, match=UNREADABLE[text]) as caught:
        clean_schema(text)
    assert len(str(caught.value)) < 400


def test_depth_is_limited() -> None:
    schema: dict[str, Any] = {}
    for _ in range(MAX_DEPTH):
        schema = {"items": schema}
    assert clean(schema)
    assert "nested more than" in refusal({"items": schema})
    values: Any = []
    for _ in range(MAX_DEPTH):
        values = [values]
    assert "nested more than" in refusal({"const": values})


def test_references_lead_to_numbered_definitions() -> None:
    schema = {
        "$id": "https://example.com/s",
        "properties": {
            "a": {"$ref": "#/definitions/x~1y%20z"},
            "b": {"$ref": "https://example.com/s#/definitions/x~1y%20z"},
            "c": {"$ref": "#named"},
            "d": {"$ref": "#"},
        },
        "definitions": {"x/y z": {"type": "null"}, "n": {"$anchor": "named", "type": "string"}},
    }
    cleaned = clean(schema)
    targets = {name: inner["$ref"] for name, inner in cleaned["properties"].items()}
    assert targets["a"] == targets["b"]
    defs = {name: cleaned["$defs"][ref.rpartition("/")[2]] for name, ref in targets.items()}
    assert defs["a"] == {"type": "null"}
    assert defs["c"] == {"type": "string"}
    assert defs["d"]["properties"] == cleaned["properties"]


def test_a_reference_inside_a_schema_with_its_own_name_is_refused() -> None:
    inner = {"$id": "https://example.com/other", "$ref": "#/x"}
    assert refusal({"items": inner}).startswith("/items/$id: references inside")
    assert clean({"items": {"$id": "/items", "type": "null"}}) == {"items": {"type": "null"}}


def test_definitions_nobody_asks_for_ask_nothing() -> None:
    assert clean({"$defs": {"x": {"uniqueItems": True}}, "type": "null"}) == {"type": "null"}


def test_older_drafts_are_read_as_they_were_meant() -> None:
    draft_4 = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "items": [{"minimum": 3, "exclusiveMinimum": True}],
        "additionalItems": False,
    }
    assert clean(draft_4) == {
        "prefixItems": [{"minimum": 3, "exclusiveMinimum": 3}],
        "items": False,
    }
    draft_7 = {"$schema": "http://json-schema.org/draft-07/schema", "additionalItems": False}
    assert clean(draft_7) == {}
    assert refusal({"$schema": "http://json-schema.org/draft-03/schema#"}).startswith("/$schema: ")


def test_bounds_beyond_exact_numbers_are_drawn_in() -> None:
    cleaned = clean({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1})
    assert (cleaned["minimum"], cleaned["maximum"]) == (-(2**53), 2**53)


def test_formats_stand_beside_patterns_and_bounds() -> None:
    assert clean({"format": "int32"}) == {"minimum": -(2**31), "maximum": 2**31 - 1}
    both = clean({"format": "date", "pattern": "^2"})
    assert both["pattern"] == "^2"
    assert both["allOf"][0]["pattern"].startswith("^(?:")
    assert clean({"format": "password"}) == {}


ENDLESS = {
    "a list's next": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "an element": {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    "in turns": {
        "$ref": "#/$defs/a",
        "$defs": {
            "a": {"type": "array", "prefixItems": [{"$ref": "#/$defs/b"}], "minItems": 1},
            "b": {
                "type": "object",
                "additionalProperties": {"$ref": "#/$defs/a"},
                "required": ["q"],
            },
        },
    },
    "false": False,
}


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS)
def test_what_never_ends_is_refused(schema: Any) -> None:
    assert refusal(schema).startswith("the schema: nothing can fulfil it")


def test_what_never_ends_is_left_out_where_it_may_be() -> None:
    endless = {"type": "array", "items": {"$ref": "#/$defs/e"}, "minItems": 1}
    cleaned = clean({"properties": {"a": {"$ref": "#/$defs/e"}}, "$defs": {"e": endless}})
    assert cleaned["properties"]["a"] == {"anyOf": [False]}


@pytest.mark.parametrize("name", ["enum", "const", "properties"])
def test_what_never_ends_is_left_out_under_any_name(name: str) -> None:
    endless = {"type": "array", "items": {"$ref": "#/$defs/e"}, "minItems": 1}
    named = {"type": "object", "properties": {name: {"$ref": "#/$defs/e"}}}
    cleaned = clean({"properties": {"a": named}, "$defs": {"e": endless}})
    assert cleaned["properties"]["a"]["properties"][name] == {"anyOf": [False]}


def test_standing_for_oneself_is_refused() -> None:
    assert refusal({"$ref": "#"}) == "the schema: refers to itself with nothing in between"
    schema = {
        "items": {"$ref": "#/$defs/a"},
        "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}},
    }
    assert refusal(schema).startswith("/$defs/a: refers to itself")


def test_recursion_that_ends_is_fine() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    assert clean(tree)["$defs"]["0"]["properties"]["next"] == {"$ref": "#/$defs/0"}


def tagged(tag: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"kind": {"const": tag}, **more}, "required": ["kind"]}


APART = {
    "types": [{"type": "string"}, {"type": "integer"}, {"type": ["null", "object"]}],
    "literals": [{"enum": [1, "a"]}, {"const": 2}, {"enum": ["b", None]}],
    "ranges": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 4}],
    "lengths": [{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 4}],
    "tags": [tagged("a"), tagged("b"), tagged("c")],
    "references": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}, {"type": "null"}],
    "closed objects": [
        {
            "type": "object",
            "properties": {"a": {}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {"type": "object", "properties": {"b": {}}, "additionalProperties": False},
    ],
    "inside": [
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"allOf": [{"type": ["string", "integer"]}, {"type": ["integer", "object"]}]},
    ],
    "elements": [
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "array", "prefixItems": [{"type": "null"}], "minItems": 1},
    ],
}


@pytest.mark.parametrize("choices", APART.values(), ids=APART)
def test_one_of_choices_that_exclude_each_other_become_any_of(choices: list[Any]) -> None:
    cleaned = clean({"oneOf": choices, "$defs": {"a": tagged(1), "b": tagged(2)}})
    assert len(cleaned["anyOf"]) == len(choices)


OVERLAPPING = {
    "integers are numbers": [{"type": "integer"}, {"type": "number"}],
    "equal numbers": [{"const": 1}, {"const": 1.0}],
    "free strings": [{"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}],
    "tags that may be absent": [
        {"type": "object", "properties": {"kind": {"const": tag}}} for tag in "ab"
    ],
    "tags of what may be no object": [
        {"properties": {"kind": {"const": tag}}, "required": ["kind"]} for tag in "ab"
    ],
    "open objects": [{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}],
    "lists that may be empty": [
        {"type": "array", "items": {"type": kind}} for kind in ("string", "null")
    ],
}


@pytest.mark.parametrize("choices", OVERLAPPING.values(), ids=OVERLAPPING)
def test_one_of_choices_that_may_overlap_are_refused(choices: list[Any]) -> None:
    schema = {"properties": {"p": {"oneOf": [{"type": "boolean"}, *choices]}}}
    assert re.match(r"/properties/p/oneOf: choices [01] and [12] may both hold", refusal(schema))


def test_what_stands_beside_one_of_counts() -> None:
    choices = [{"properties": {"kind": {"const": tag}}} for tag in "ab"]
    assert clean({"type": "object", "required": ["kind"], "oneOf": choices})
    both = clean({"oneOf": [{"type": "null"}, {"type": "string"}], "anyOf": [{"minLength": 1}]})
    assert both["anyOf"] == [{"minLength": 1}]
    assert both["allOf"] == [{"anyOf": [{"type": "null"}, {"type": "string"}]}]


def test_many_choices_are_read_quickly() -> None:
    tags = [tagged(f"k{i}", value={"type": "string"}) for i in range(3000)]
    free = [{"type": "string", "minLength": i, "maxLength": i} for i in range(400)]
    started = time.process_time()
    assert len(clean({"oneOf": tags})["anyOf"]) == 3000
    assert clean_or_refusal({"oneOf": free})
    assert time.process_time() - started < 5


def clean_or_refusal(schema: Any) -> Any:
    try:
        return clean(schema)
    except ConstraintError as error:
        return error


def test_the_benchmarks_schemas_can_be_enforced() -> None:
    paths = sorted(SCHEMAS.glob("*.json"))
    assert len(paths) == 25
    for path in paths:
        assert clean_schema(path.read_text()).root.schema


def test_no_garbage_escapes_as_another_error() -> None:
    keys = [*ENFORCED, "$id", "$schema", "$anchor", "definitions"]
    rng = random.Random(1)

    def anything(depth: int) -> Any:
        kind = rng.randrange(9 if depth < 4 else 6)
        if kind < 6:
            return rng.choice(
                [None, True, False, 0, -1, 2.5, 1e308, 10**400, "", "#", "#/items", "a"]
            )
        if kind == 6:
            return [anything(depth + 1) for _ in range(rng.randrange(3))]
        return {rng.choice(keys): anything(depth + 1) for _ in range(rng.randrange(4))}

    outcomes = {type(clean_or_refusal(anything(0))) for _ in range(4000)}
    assert outcomes == {dict, ConstraintError}
