"""Checks whether a JSON value conforms to a schema that a client sent.

The schema is untrusted. Its size, depth and processor time are bounded, no `$ref` is fetched, and no `pattern` is
matched, because a regular expression may run for hours and blocks the interpreter. A value passes if the check cannot
decide within these bounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from router.verifying.parsing import UndecidedError, parse_json
from router.verifying.schema_form import is_schema

MOST_SCHEMA_BYTES = 64 * 1024
MOST_VALUE_CHARACTERS = 128 * 1024  # of the JSON text; each error message contains its value
MOST_SECONDS = 0.5  # of processor time, for one value
KNOWN_SCHEMAS = 128

# regular expressions, and keywords that depend on them
_UNMATCHED = frozenset({"pattern", "patternProperties", "unevaluatedProperties", "unevaluatedItems"})
# keywords that negate a schema: unsafe if a keyword inside is skipped
_NEGATIONS = frozenset({"not", "if", "contains", "oneOf"})

Errors = Iterator[Any]
Keyword = Callable[[Any, Any, Any, Any], Any]


def conforms(value: Any, schema: bytes) -> bool:
    """Whether a value conforms to a schema. True if the check cannot decide.

    >>> conforms({"a": 1}, b'{"required": ["a"]}'), conforms({}, b'{"required": ["a"]}')
    (True, False)
    """
    if len(schema) > MOST_SCHEMA_BYTES:
        return True
    validator = _validator(schema)
    if validator is None:
        return True
    until = time.thread_time() + MOST_SECONDS
    try:
        return not any(True for _ in validator.evolve(format_checker=_Clock(until)).iter_errors(value))
    except Exception:  # a meaningless schema, a remote or circular `$ref`, or a slow schema
        return True


class _Clock:
    """The deadline of a validation. It is passed in place of a format checker; formats are not checked."""

    def __init__(self, until: float) -> None:
        self.until = until


@lru_cache(KNOWN_SCHEMAS)
def _validator(schema: bytes) -> Any:
    """A `jsonschema` validator for a schema; None if the schema is malformed or unsafe."""
    import jsonschema  # takes 15 MB, so it is loaded on first use
    from referencing import Registry

    drafts = {
        draft.META_SCHEMA["$schema"].rstrip("#"): draft
        for draft in (
            jsonschema.Draft4Validator,
            jsonschema.Draft6Validator,
            jsonschema.Draft7Validator,
            jsonschema.Draft201909Validator,
            jsonschema.Draft202012Validator,
        )
    }
    try:
        read = parse_json(schema.decode())
        if not isinstance(read, dict):
            return None
        named = read.pop("$schema", jsonschema.Draft202012Validator.META_SCHEMA["$schema"])
        draft = drafts.get(str(named).rstrip("#"))
        keys = set(_keys(read))
        if (
            draft is None or "$schema" in keys
        ):  # the library would validate a nested `$schema` by its own rules, patterns included
            return None
        if not is_schema(read):
            return None
    except (ValueError, UndecidedError, RecursionError):
        return None
    return _bounded(draft, leaves_out=not keys.isdisjoint(_UNMATCHED))(read, registry=Registry())


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from _keys(each)
    elif isinstance(value, list):
        for each in value:
            yield from _keys(each)


@lru_cache
def _bounded(draft: Any, *, leaves_out: bool) -> Any:
    """A validator of a draft that checks its deadline before each keyword and matches no regular expression."""
    from jsonschema.validators import create

    keywords = {
        name: _timed(keyword)
        for name, keyword in draft.VALIDATORS.items()
        if name not in _UNMATCHED and not (leaves_out and name in _NEGATIONS)
    }
    if leaves_out:
        if "oneOf" in draft.VALIDATORS:
            keywords["oneOf"] = _timed(draft.VALIDATORS["anyOf"])
        keywords["additionalProperties"] = _timed(_without_patterns(draft.VALIDATORS["additionalProperties"]))
    keywords["uniqueItems"] = _timed(_unique_items)
    del keywords["format"]
    return create(
        draft.META_SCHEMA,
        keywords,
        type_checker=draft.TYPE_CHECKER,
        id_of=draft.ID_OF,
        applicable_validators=draft._APPLICABLE_VALIDATORS,
    )


def _timed(keyword: Keyword) -> Keyword:
    def timed(validator: Any, given: Any, value: Any, schema: Any) -> Errors:
        if time.thread_time() > validator.format_checker.until:
            raise UndecidedError
        yield from keyword(validator, given, value, schema) or ()

    return timed


def _without_patterns(keyword: Keyword) -> Keyword:
    """`additionalProperties`, unless `patternProperties` decides which properties are additional."""

    def checked(validator: Any, given: Any, value: Any, schema: Any) -> Errors:
        if "patternProperties" not in schema:
            yield from keyword(validator, given, value, schema) or ()

    return checked


def _unique_items(validator: Any, given: Any, value: Any, schema: Any) -> Errors:  # noqa: ARG001  as jsonschema calls it
    """`uniqueItems` in linear time; the library compares every pair."""
    import json

    from jsonschema import ValidationError

    if given and isinstance(value, list):
        written = {json.dumps(item, sort_keys=True) for item in value}
        if len(written) < len(value):
            yield ValidationError("an item is repeated")
