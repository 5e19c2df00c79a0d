"""Request bodies: edits change only their own fields; invalid bodies get the router's own errors."""

from __future__ import annotations

import contextlib
import json
import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from fuzz.inputs import inputs
from fuzz.targets import Target
from router.errors import RouterError
from router.planning.api_formats import CHAT, COMPLETIONS, RESPONSES
from router.planning.plan import ApiFormat, Request, read_request
from router.policy.features import RequestError
from router.wire import bodies
from router.wire.nesting import exceeds_depth
from router.wire.skeleton import Skeleton, SkeletonBuilder
from router.wire.text import repair_text

ANOTHER = 'an "other" modél'
URL = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,' + b"A" * 1500 + b'"}}'
EXAMPLES = (
    b'{"model":"auto","messages":[{"role":"user","content":"2+2?"}],"stream":true}',
    b'{ "messages" : [{"role":"system","content":[{"type":"text","text":"a"}]},{"role":"user","content":"b"}],\n'
    b' "stream_options" : {"include_usage" : false, "x":1}, "stream": true, "model" : "gpt-4o" , "tools":[] }\r\n',
    '{"model":"gpt-4o","messages":[{"role":"user","content":"é😀\\u0041\\ud83d"}],"n":1e5,"seed":-0.0}'.encode(),
    b'{"stream":true,"stream_options":null,"model":"a","input":"x","previous_response_id":"r","metadata":{"a":"b"}}',
    b'{"model":"auto","messages":[{"role":"user","content":[%b,{"type":"text","text":"?"}]}],"max_tokens":5}' % URL,
    b'{"model":"x","input":[{"role":"user","content":"x"}],"model_":"x","a":{"model":"x"}}',
    b'{"model":"gpt-3.5-turbo-instruct","prompt":["a","b"],"stream":true,"stream_options":{}}',
)
PIECES = (
    *(b'"model":"x",', b'"m\\u006fdel":"x",', b',"model":"x"', b'"model":', b'"stream":true,', b'"data:', b'"data":"'),
    *(b'"stream_options":{"include_usage":true},', b'"stream_options":{},', b'"include_usage":null', b"A" * 1100),
    *(URL, b'"a":"\\\\",', b'"":0,', b'"a\\"b":{"model":1},'),
)  # fmt: skip


def _exact(text: str) -> Any:
    """A parsed text with its keys in their order, keys that are there twice, and numbers as they are written."""
    return json.loads(text, object_pairs_hook=_Pairs, parse_int=_Number, parse_float=_Number)


class _Pairs(list[tuple[str, Any]]):
    """The fields of an object."""


class _Number(str):
    """A number."""

    __slots__ = ()


def _split_randomly(data: bytes) -> list[bytes]:
    chance = random.Random(zlib.crc32(data))
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(4)))
    return [data[start:stop] for start, stop in pairwise((0, *cuts, len(data)))]


def _read_repaired(skeleton: bytes, api_format: ApiFormat) -> tuple[Request, bytes]:
    """A body as `Exchange` reads it: repair_text where that is needed."""
    try:
        return read_request(skeleton, api_format), skeleton
    except RouterError:
        text = repair_text(skeleton)
        return read_request(text, api_format), text


def _rewrite(pieces: list[bytes], skeleton: Skeleton, api_format: ApiFormat) -> tuple[bytes, bool]:
    """The body for another model, and whether it now asks for its usage."""
    request, text = _read_repaired(skeleton.text, api_format)
    with contextlib.suppress(RequestError):  # refused where there is to be a decision, else passed on
        api_format.read_features(request.fields)
    edits = [bodies.model_edit(request.spans, text, ANOTHER)]
    usage = None
    if api_format.usage_on_request and bodies.is_true(request.fields, "stream") and "model" in request.spans:
        usage = bodies.usage_edit(request.fields, request.spans)
    edits += [] if usage is None else [usage]
    body_edits = [bodies.Edit(skeleton.in_body(edit.start), skeleton.in_body(edit.stop), edit.text) for edit in edits]
    return b"".join(bodies.apply_edits(pieces, body_edits)), usage is not None


def _expected_fields(fields: _Pairs, usage_edit: bool) -> dict[str, Any]:
    expected = {name: value for name, value in fields if name != "model"}
    if usage_edit:
        options = expected.get("stream_options")
        others = [pair for pair in options if pair[0] != "include_usage"] if isinstance(options, _Pairs) else []
        expected["stream_options"] = sorted([*others, ("include_usage", True)], key=repr)
    return expected


def _check_rewriting(data: bytes, text: str, api_format: ApiFormat) -> None:
    pieces = _split_randomly(data)
    stripping = SkeletonBuilder()
    for piece in pieces:
        stripping.feed(piece)
    for skeleton in (Skeleton(data), stripping.finish()):
        try:
            after, usage_edit = _rewrite(pieces, skeleton, api_format)
        except RouterError as error:
            assert error.status == 400, error.status
            continue
        try:
            before = _exact(text)
        except (ValueError, RecursionError):
            continue  # Python's reader takes less
        fields_after = dict(_exact(after.decode()))
        assert fields_after.pop("model") == ANOTHER, "the model was not replaced"
        if usage_edit:
            fields_after["stream_options"] = sorted(fields_after["stream_options"], key=repr)
        assert fields_after == _expected_fields(before, usage_edit), "another field was changed"


def _check_renaming(data: bytes) -> None:
    """An answer whose model is renamed says the same but for it."""
    after = bodies.replace_model(data, b'"auto"')
    if after == data or exceeds_depth(data):  # what nests deeply is not compared: Python's reader has no stack for it
        return
    with contextlib.suppress(ValueError, RecursionError):  # Python's reader takes less
        fields_before, fields_after = (
            dict(_exact(data.decode(errors="replace"))),
            dict(_exact(after.decode(errors="replace"))),
        )
        assert fields_after == {**fields_before, "model": "auto"}, "another field was changed"


def check(data: bytes) -> None:
    """Rewrite a body for another model; rename the model of an answer."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""  # refused before it is read
    for api_format in (CHAT, RESPONSES, COMPLETIONS) if text else ():
        _check_rewriting(data, text, api_format)
    bodies.read_metadata(data)
    _check_renaming(data)


@contextmanager
def open_target() -> Iterator[Target]:
    """The target."""
    yield Target(check, inputs(EXAMPLES, PIECES))
