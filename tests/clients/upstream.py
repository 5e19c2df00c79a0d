"""A fake OpenAI for clients: chat, responses, tools, structured output, embeddings, files and audio.

Run: python tests/clients/upstream.py PORT
"""

from __future__ import annotations

import base64
import json
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 5,
    "total_tokens": 17,
    "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}
RESPONSE_USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 17,
}
WORDS = ("The", " capital", " is", " Paris", ".")
HEADERS = {"x-request-id": "req_clients", "openai-version": "2020-10-01", "x-ratelimit-remaining-requests": "99"}


def build_example(schema: Any, root: Any) -> Any:
    """A value that is valid under a JSON schema."""
    if "$ref" in schema:
        return build_example(
            root["$defs" if "$defs" in root else "definitions"][schema["$ref"].rsplit("/", 1)[1]], root
        )
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return build_example(schema[union][0], root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    json_type = schema.get("type", "object")
    json_type = json_type[0] if isinstance(json_type, list) else json_type
    if json_type == "object":
        return {
            name: build_example(property_schema, root) for name, property_schema in schema.get("properties", {}).items()
        }
    examples = {"string": "Paris", "integer": 3, "number": 2.5, "boolean": True, "null": None}
    return (
        [build_example(schema.get("items", {"type": "string"}), root)] if json_type == "array" else examples[json_type]
    )


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return JSONResponse(body, status, headers=HEADERS)


def choose_tool_call(tools: Any, choice: Any) -> tuple[str, str] | None:
    """The name and arguments of the tool call, or None."""
    functions = [tool.get("function", tool) for tool in tools or () if tool.get("type") == "function"]
    if not functions or choice == "none":
        return None
    if isinstance(choice, dict):
        name = choice.get("function", choice).get("name")
        functions = [function for function in functions if function["name"] == name]
    schema = functions[0].get("parameters") or {}
    return functions[0]["name"], json.dumps(build_example(schema, schema))


def stream_events(events: Iterator[Any], *, named: bool) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for event in events:
            name = f"event: {event['type']}\n" if named else ""
            yield f"{name}data: {json.dumps(event)}\n\n".encode()
        if not named:
            yield b"data: [DONE]\n\n"

    return StreamingResponse(body(), media_type="text/event-stream", headers=HEADERS)


async def chat(request: Request) -> Response:
    body = await request.json()
    if body["model"] == "gpt-none":
        return error(404, "The model `gpt-none` does not exist", "model", "model_not_found")
    if not isinstance(body.get("messages"), list):
        return error(400, "Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    has_tool_result = body["messages"][-1]["role"] == "tool"
    tool_call = None if has_tool_result else choose_tool_call(body.get("tools"), body.get("tool_choice"))
    response_format = body.get("response_format") or {}
    words: tuple[str, ...] = WORDS
    if response_format.get("type") == "json_schema":
        schema = response_format["json_schema"]["schema"]
        words = (json.dumps(build_example(schema, schema)),)
    elif response_format.get("type") == "json_object":
        words = ('{"capital":', '"Paris"}')
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 99
    finish = "tool_calls" if tool_call else "length" if limit < len(words) else "stop"
    common = {
        "id": "chatcmpl-clients",
        "created": 1_800_000_000,
        "model": body["model"],
        "system_fingerprint": "fp_clients",
        "service_tier": "default",
    }
    if body.get("stream"):
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        chunks = chat_chunks(common, words[:limit], tool_call, finish, body.get("n") or 1, USAGE if usage else None)
        return stream_events(chunks, named=False)
    return JSONResponse(chat_object(body, common, words[:limit], tool_call, finish, USAGE), headers=HEADERS)


def chat_object(
    body: dict[str, Any],
    common: dict[str, Any],
    words: tuple[str, ...],
    tool_call: tuple[str, str] | None,
    finish: str,
    usage: dict[str, Any],
) -> dict[str, Any]:
    """A whole chat completion: the words, or the call of a tool."""
    message: dict[str, Any] = {"role": "assistant", "content": None if tool_call else "".join(words), "refusal": None}
    if tool_call:
        function = {"name": tool_call[0], "arguments": tool_call[1]}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    logprobs = {"content": [{"token": "The", "logprob": -0.1, "bytes": [84], "top_logprobs": []}], "refusal": None}
    choices = [
        {
            "index": index,
            "message": {**message, "annotations": []},
            "logprobs": logprobs if body.get("logprobs") else None,
            "finish_reason": finish,
        }
        for index in range(body.get("n") or 1)
    ]
    return {**common, "object": "chat.completion", "choices": choices, "usage": usage}


def chat_chunks(
    common: dict[str, Any],
    words: tuple[str, ...],
    tool_call: tuple[str, str] | None,
    finish: str,
    count: int,
    usage: dict[str, Any] | None,
) -> Iterator[Any]:
    """The chunks of a streamed chat completion; the usage comes last, if it is wanted."""
    common = {**common, "object": "chat.completion.chunk"}
    null_usage = {"usage": None} if usage else {}
    for index in range(count):

        def chunk(delta: dict[str, Any], end: str | None = None, index: int = index) -> dict[str, Any]:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": end}
            return {**common, "choices": [choice], **null_usage, "obfuscation": "aB3"}

        yield chunk({"role": "assistant", "content": None if tool_call else "", "refusal": None})
        if tool_call:
            function = {"name": tool_call[0], "arguments": ""}
            yield chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
            half = len(tool_call[1]) // 2
            for part in (tool_call[1][:half], tool_call[1][half:]):
                yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        else:
            for word in words:
                yield chunk({"content": word})
        yield chunk({}, finish)
    if usage:
        yield {**common, "choices": [], "usage": usage}


async def responses(request: Request) -> Response:
    body = await request.json()
    input_items = body.get("input")
    has_tool_result = isinstance(input_items, list) and any(
        item.get("type") == "function_call_output" for item in input_items
    )
    tool_call = None if has_tool_result else choose_tool_call(body.get("tools"), body.get("tool_choice"))
    text_format = (body.get("text") or {}).get("format") or {}
    words: tuple[str, ...] = WORDS
    if text_format.get("type") == "json_schema":
        words = (json.dumps(build_example(text_format["schema"], text_format["schema"])),)
    response = response_object(body, words, tool_call, RESPONSE_USAGE)
    if not body.get("stream"):
        return JSONResponse(response, headers=HEADERS)
    return stream_events(response_events(response, words, tool_call), named=True)


def response_object(
    body: dict[str, Any], words: tuple[str, ...], tool_call: tuple[str, str] | None, usage: dict[str, Any]
) -> dict[str, Any]:
    """A whole response with one item: the words, or the call of a tool."""
    if tool_call:
        item: dict[str, Any] = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "status": "completed"}
        item |= {"name": tool_call[0], "arguments": tool_call[1]}
    else:
        part = {"type": "output_text", "text": "".join(words), "annotations": [], "logprobs": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp_clients",
        "object": "response",
        "created_at": 1_800_000_000,
        "status": "completed",
        "model": body["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools") or [],
        "temperature": 1.0,
        "top_p": 1.0,
        "metadata": {},
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "usage": usage,
    }


def response_events(
    response: dict[str, Any], words: tuple[str, ...], tool_call: tuple[str, str] | None
) -> Iterator[dict[str, Any]]:
    """The events of a streamed response, numbered."""
    return ({**event, "sequence_number": number} for number, event in enumerate(_events(response, words, tool_call)))


def _events(
    response: dict[str, Any], words: tuple[str, ...], tool_call: tuple[str, str] | None
) -> Iterator[dict[str, Any]]:
    item = response["output"][0]
    unfinished = {**response, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": unfinished}
    yield {"type": "response.in_progress", "response": unfinished}
    position = {"item_id": item["id"], "output_index": 0}
    if tool_call:
        unfinished_item = {**item, "arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": unfinished_item}
        yield {"type": "response.function_call_arguments.delta", **position, "delta": tool_call[1]}
        yield {
            "type": "response.function_call_arguments.done",
            **position,
            "name": tool_call[0],
            "arguments": tool_call[1],
        }
    else:
        position["content_index"] = 0
        unfinished_item = {**item, "content": [], "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": unfinished_item}
        empty_part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield {"type": "response.content_part.added", **position, "part": empty_part}
        for word in words:
            yield {"type": "response.output_text.delta", **position, "delta": word, "logprobs": []}
        yield {"type": "response.output_text.done", **position, "text": "".join(words), "logprobs": []}
        yield {"type": "response.content_part.done", **position, "part": item["content"][0]}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": response}


async def completions(request: Request) -> Response:
    body = await request.json()
    common = {"id": "cmpl-clients", "object": "text_completion", "created": 1, "model": body["model"]}
    if body.get("stream"):
        choice = {"index": 0, "logprobs": None, "finish_reason": None}
        return stream_events(({**common, "choices": [{**choice, "text": word}]} for word in WORDS), named=False)
    choice = {"index": 0, "text": "".join(WORDS), "logprobs": None, "finish_reason": "stop"}
    return JSONResponse({**common, "choices": [choice], "usage": USAGE}, headers=HEADERS)


async def embeddings(request: Request) -> Response:
    body = await request.json()
    inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
    vector: Any = [0.1, 0.2, 0.3]
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(len(inputs))]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return JSONResponse({"object": "list", "model": body["model"], "data": data, "usage": usage}, headers=HEADERS)


async def models(request: Request) -> Response:
    data = [{"id": name, "object": "model", "created": 1, "owned_by": "system"} for name in ("gpt-4o", "gpt-4o-mini")]
    return JSONResponse({"object": "list", "data": data}, headers=HEADERS)


async def moderations(request: Request) -> Response:
    return JSONResponse({"id": "modr-1", "model": "omni-moderation-latest", "results": []}, headers=HEADERS)


async def uploaded_bytes(request: Request) -> int:
    """The length of the file in a multipart body."""
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    for part in (await request.body()).split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b"filename=" in head:
            return len(content) - 2  # the line end before the next boundary
    raise ValueError("no file in the body")


async def files(request: Request) -> Response:
    size = await uploaded_bytes(request)
    description = {"id": "file-1", "object": "file", "bytes": size, "created_at": 1, "purpose": "batch"}
    return JSONResponse({**description, "filename": "a.bin", "status": "processed"}, headers=HEADERS)


async def speech(request: Request) -> Response:
    return Response(bytes(range(256)) * 100, media_type="audio/mpeg", headers=HEADERS)


async def transcriptions(request: Request) -> Response:
    return JSONResponse({"text": f"{await uploaded_bytes(request)} bytes"}, headers=HEADERS)


POST = {
    "chat/completions": chat,
    "responses": responses,
    "completions": completions,
    "embeddings": embeddings,
    "moderations": moderations,
    "files": files,
    "audio/speech": speech,
    "audio/transcriptions": transcriptions,
}
app = Starlette(
    routes=[Route("/v1/models", models)]
    + [Route(f"/v1/{path}", endpoint, methods=["POST"]) for path, endpoint in POST.items()]
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
