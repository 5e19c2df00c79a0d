"""Checks whether a JSON value is a well-formed JSON Schema.

The check against the meta-schema in `jsonschema` takes two seconds for 64 KiB. A malformed schema would be
misinterpreted: `"required": "ab"` would require the properties a and b.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def is_schema(value: Any) -> bool:
    """Whether every keyword has a value of its type, in this schema and all nested schemas.

    >>> is_schema({"properties": {"required": {"type": "string"}}, "required": ["required"]})
    True
    >>> is_schema({"properties": {"a": {"required": "a"}}})
    False
    """
    if isinstance(value, bool):
        return True
    if not isinstance(value, dict):
        return False
    return all(name not in _KINDS or _KINDS[name](each) for name, each in value.items())


def _schemas(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_schema, value))


def _named_schemas(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_schema, value.values()))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _limit(value: Any) -> bool:
    return _number(value) or isinstance(value, bool)  # a boolean in draft 4


def _types(value: Any) -> bool:
    return all(each in _TYPES for each in ([value] if isinstance(value, str) else value if _texts(value) else [None]))


_TYPES = ("null", "boolean", "object", "array", "number", "integer", "string")
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "type": _types,
    **dict.fromkeys(("properties", "$defs", "definitions", "dependentSchemas", "patternProperties"), _named_schemas),
    **dict.fromkeys(("anyOf", "allOf", "oneOf", "prefixItems"), _schemas),
    "items": lambda value: is_schema(value) or _schemas(value),
    "required": _texts,
    "dependentRequired": lambda value: isinstance(value, dict) and all(map(_texts, value.values())),
    "dependencies": lambda value: isinstance(value, dict) and all(_texts(v) or is_schema(v) for v in value.values()),
    "enum": lambda value: isinstance(value, list),
    **dict.fromkeys(("minimum", "maximum"), _number),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), _limit),
    "multipleOf": lambda value: _number(value) and value > 0,
    **dict.fromkeys(("not", "if", "then", "else", "contains", "propertyNames"), is_schema),
    **dict.fromkeys(("additionalProperties", "additionalItems"), is_schema),
    **{
        f"{end}{what}": lambda value: _number(value) and value >= 0
        for end in ("min", "max")
        for what in ("Length", "Items", "Properties", "Contains")
    },
    **dict.fromkeys(("$ref", "$dynamicRef", "$id", "$anchor", "$dynamicAnchor"), lambda value: isinstance(value, str)),
}
