"""JSON Schema's vocabulary: what is enforced, what only annotates, what can't be enforced.

Tables alone. Imports the standard library.

Source: JSON Schema 2020-12 core and validation; OpenAPI 3.1 data types; RFC 3339, RFC 3986.
"""

from __future__ import annotations

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")

DIALECTS = {
    "json-schema.org/draft/2020-12/schema": 2020,
    "json-schema.org/draft/2019-09/schema": 2019,
    "json-schema.org/draft-07/schema": 7,
    "json-schema.org/draft-06/schema": 6,
    "json-schema.org/draft-04/schema": 4,
    "json-schema.org/schema": 2020,
    "spec.openapis.org/oas/3.1/dialect/base": 2020,
}
"""`$schema` without its scheme and "#", and what it stands for."""

ANNOTATIONS = frozenset(
    {
        "$comment", "$schema", "$id", "id", "$anchor", "$defs", "definitions", "$vocabulary",
        "title", "description", "default", "deprecated", "readOnly", "writeOnly", "examples",
        "contentMediaType", "contentEncoding", "contentSchema",
        # OpenAPI
        "discriminator", "example", "externalDocs", "xml",
        # editors
        "defaultSnippets", "deprecationMessage", "doNotSuggest", "enumDescriptions",
        "markdownDescription", "markdownEnumDescriptions",
    }
)  # fmt: skip
"""Keywords that ask nothing of a value; so do all that begin with "x-"."""

ENFORCED = frozenset(
    {
        "$ref", "type", "enum", "const", "allOf", "anyOf", "oneOf",
        "minLength", "maxLength", "pattern", "format",
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
        "properties", "patternProperties", "additionalProperties", "required",
        "minProperties", "maxProperties",
        "items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems",
    }
)  # fmt: skip

_CHOICES = "write the cases out with anyOf, each with a const that tells them apart"
REFUSED = {
    "not": "say with enum, pattern or bounds what is allowed",
    "if": _CHOICES,
    "then": _CHOICES,
    "else": _CHOICES,
    "contains": "use prefixItems for elements that must be there",
    "minContains": "use minItems",
    "maxContains": "use maxItems",
    "dependentRequired": _CHOICES,
    "dependentSchemas": _CHOICES,
    "dependencies": _CHOICES,
    "propertyNames": "use patternProperties with additionalProperties: false",
    "unevaluatedItems": "use items: false",
    "unevaluatedProperties": "use additionalProperties: false",
    "$dynamicRef": "use $ref",
    "$dynamicAnchor": "use $anchor and $ref",
    "$recursiveRef": "use $ref",
    "$recursiveAnchor": "use $anchor and $ref",
    "nullable": 'use "type": [..., "null"]',
}
"""Known keywords that can't be enforced while a text is written, and what to write instead."""

_DAY = "(?:0[1-9]|1[0-9]|2[0-8])"
_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][48]|[2468]0|[13579][26])00)"
_DATE = (
    "(?:(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-"
    f"(?:(?:0[1-9]|1[0-2])-{_DAY}|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    f"|{_LEAP}-02-29)"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]+)?(?:Z|[+-]{_CLOCK})"
_LABEL = "[a-zA-Z0-9](?:-?[a-zA-Z0-9]){0,30}"
_SCHEME = "[a-zA-Z][a-zA-Z0-9+.-]*:"
_HOST = "[a-zA-Z0-9.-]+(?::[0-9]{1,5})?"
_CHAR = r"(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})"
_NO_COLON = r"(?:[a-zA-Z0-9._~!$&'()*+,;=@-]|%[0-9a-fA-F]{2})"
_MORE = f"(?:/{_CHAR}*)*"

PATTERNS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "hostname": rf"^{_LABEL}(?:\.{_LABEL}){{0,3}}$",
    "uri-reference": (
        f"^(?:(?:{_SCHEME})?//{_HOST}{_MORE}|{_SCHEME}{_CHAR}+{_MORE}"
        f"|/(?:{_CHAR}+{_MORE})?|{_NO_COLON}+{_MORE})?"
        rf"(?:\?(?:{_CHAR}|[/?])*)?(?:#(?:{_CHAR}|[/?])*)?$"
    ),
    "json-pointer": "^(?:/(?:[^~/]|~[01])*)*$",
    "byte": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
}
"""Formats written as patterns here: llguidance's own let through 30 February and leap seconds."""

NATIVE_FORMATS = frozenset({"duration", "email", "ipv4", "ipv6", "uri", "uuid"})
"""Formats that llguidance enforces."""

INTEGER_FORMATS = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**53), 2**53),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**53),
}
"""Bounds of OpenAPI's numbers, narrowed to what every JSON reader keeps exactly."""

HINT_FORMATS = frozenset({"float", "double", "password", "binary"})
"""Formats of OpenAPI that ask nothing of a JSON value."""
