"""An OpenAI for clients: chat, responses, tools, structured output, embeddings, files and sound, all made up.

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


def example(schema: Any, root: Any) -> Any:
    """A value that fits a JSON schema."""
    if "$ref" in schema:
        return example(root["$defs" if "$defs" in root else "definitions"][schema["$ref"].rsplit("/", 1)[1]], root)
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return example(schema[union][0], root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: example(inner, root) for name, inner in schema.get("properties", {}).items()}
    made = {"string": "Paris", "integer": 3, "number": 2.5, "boolean": True, "null": None}
    return [example(schema.get("items", {"type": "string"}), root)] if kind == "array" else made[kind]


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return JSONResponse(body, status, headers=HEADERS)


def called(tools: Any, choice: Any) -> tuple[str, str] | None:
    """The name and arguments of the tool that is called, if one is."""
    functions = [tool.get("function", tool) for tool in tools or () if tool.get("type") == "function"]
    if not functions or choice == "none":
        return None
    if isinstance(choice, dict):
        wanted = choice.get("function", choice).get("name")
        functions = [function for function in functions if function["name"] == wanted]
    schema = functions[0].get("parameters") or {}
    return functions[0]["name"], json.dumps(example(schema, schema))


def sse(events: Iterator[Any], *, named: bool) -> Response:
    async def body() -> AsyncIterator[bytes]:
        for event in events:
            name = f"event: {event['type']}\n" if named else ""
            yield f"{name}data: {json.dumps(event)}\n\n".encode()
        if not named:
            yield b"data: [DONE]\n\n"

    return StreamingResponse(body(), media_type="text/event-stream", headers=HEADERS)


async def chat(request: Request) -> Response:
    asked = await request.json()
    if asked["model"] == "gpt-none":
        return error(404, "The model `gpt-none` does not exist", "model", "model_not_found")
    if not isinstance(asked.get("messages"), list):
        return error(400, "Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
    answered = asked["messages"][-1]["role"] == "tool"
    call = None if answered else called(asked.get("tools"), asked.get("tool_choice"))
    form = asked.get("response_format") or {}
    words: tuple[str, ...] = WORDS
    if form.get("type") == "json_schema":
        schema = form["json_schema"]["schema"]
        words = (json.dumps(example(schema, schema)),)
    elif form.get("type") == "json_object":
        words = ('{"capital":', '"Paris"}')
    limit = asked.get("max_completion_tokens") or asked.get("max_tokens") or 99
    finish = "tool_calls" if call else "length" if limit < len(words) else "stop"
    common = {
        "id": "chatcmpl-clients",
        "created": 1_800_000_000,
        "model": asked["model"],
        "system_fingerprint": "fp_clients",
        "service_tier": "default",
    }
    if asked.get("stream"):
        usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        chunks = chat_chunks(common, words[:limit], call, finish, asked.get("n") or 1, USAGE if usage else None)
        return sse(chunks, named=False)
    return JSONResponse(chat_object(asked, common, words[:limit], call, finish, USAGE), headers=HEADERS)


def chat_object(
    asked: dict[str, Any],
    common: dict[str, Any],
    words: tuple[str, ...],
    call: tuple[str, str] | None,
    finish: str,
    usage: dict[str, Any],
) -> dict[str, Any]:
    """A whole chat completion: the words, or the call of a tool."""
    message: dict[str, Any] = {"role": "assistant", "content": None if call else "".join(words), "refusal": None}
    if call:
        function = {"name": call[0], "arguments": call[1]}
        message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
    logprobs = {"content": [{"token": "The", "logprob": -0.1, "bytes": [84], "top_logprobs": []}], "refusal": None}
    choices = [
        {
            "index": n,
            "message": {**message, "annotations": []},
            "logprobs": logprobs if asked.get("logprobs") else None,
            "finish_reason": finish,
        }
        for n in range(asked.get("n") or 1)
    ]
    return {**common, "object": "chat.completion", "choices": choices, "usage": usage}


def chat_chunks(
    common: dict[str, Any],
    words: tuple[str, ...],
    call: tuple[str, str] | None,
    finish: str,
    n: int,
    usage: dict[str, Any] | None,
) -> Iterator[Any]:
    """The chunks of a streamed chat completion; the usage comes last, if it is wanted."""
    common = {**common, "object": "chat.completion.chunk"}
    nothing = {"usage": None} if usage else {}
    for index in range(n):

        def chunk(delta: dict[str, Any], end: str | None = None, index: int = index) -> dict[str, Any]:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": end}
            return {**common, "choices": [choice], **nothing, "obfuscation": "aB3"}

        yield chunk({"role": "assistant", "content": None if call else "", "refusal": None})
        if call:
            function = {"name": call[0], "arguments": ""}
            yield chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})
            half = len(call[1]) // 2
            for part in (call[1][:half], call[1][half:]):
                yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        else:
            for word in words:
                yield chunk({"content": word})
        yield chunk({}, finish)
    if usage:
        yield {**common, "choices": [], "usage": usage}


async def responses(request: Request) -> Response:
    asked = await request.json()
    given = asked.get("input")
    answered = isinstance(given, list) and any(item.get("type") == "function_call_output" for item in given)
    call = None if answered else called(asked.get("tools"), asked.get("tool_choice"))
    form = (asked.get("text") or {}).get("format") or {}
    words: tuple[str, ...] = WORDS
    if form.get("type") == "json_schema":
        words = (json.dumps(example(form["schema"], form["schema"])),)
    whole = response_object(asked, words, call, RESPONSE_USAGE)
    if not asked.get("stream"):
        return JSONResponse(whole, headers=HEADERS)
    return sse(response_events(whole, words, call), named=True)


def response_object(
    asked: dict[str, Any], words: tuple[str, ...], call: tuple[str, str] | None, usage: dict[str, Any]
) -> dict[str, Any]:
    """A whole response with one item: the words, or the call of a tool."""
    if call:
        item: dict[str, Any] = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "status": "completed"}
        item |= {"name": call[0], "arguments": call[1]}
    else:
        part = {"type": "output_text", "text": "".join(words), "annotations": [], "logprobs": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp_clients",
        "object": "response",
        "created_at": 1_800_000_000,
        "status": "completed",
        "model": asked["model"],
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": asked.get("tool_choice", "auto"),
        "tools": asked.get("tools") or [],
        "temperature": 1.0,
        "top_p": 1.0,
        "metadata": {},
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "usage": usage,
    }


def response_events(
    whole: dict[str, Any], words: tuple[str, ...], call: tuple[str, str] | None
) -> Iterator[dict[str, Any]]:
    """The events of a streamed response, numbered."""
    return ({**event, "sequence_number": number} for number, event in enumerate(_events(whole, words, call)))


def _events(whole: dict[str, Any], words: tuple[str, ...], call: tuple[str, str] | None) -> Iterator[dict[str, Any]]:
    item = whole["output"][0]
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    place = {"item_id": item["id"], "output_index": 0}
    if call:
        started = {**item, "arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": started}
        yield {"type": "response.function_call_arguments.delta", **place, "delta": call[1]}
        yield {"type": "response.function_call_arguments.done", **place, "name": call[0], "arguments": call[1]}
    else:
        place["content_index"] = 0
        started = {**item, "content": [], "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": started}
        empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield {"type": "response.content_part.added", **place, "part": empty}
        for word in words:
            yield {"type": "response.output_text.delta", **place, "delta": word, "logprobs": []}
        yield {"type": "response.output_text.done", **place, "text": "".join(words), "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": item["content"][0]}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": whole}


async def completions(request: Request) -> Response:
    asked = await request.json()
    common = {"id": "cmpl-clients", "object": "text_completion", "created": 1, "model": asked["model"]}
    if asked.get("stream"):
        choice = {"index": 0, "logprobs": None, "finish_reason": None}
        return sse(({**common, "choices": [{**choice, "text": word}]} for word in WORDS), named=False)
    choice = {"index": 0, "text": "".join(WORDS), "logprobs": None, "finish_reason": "stop"}
    return JSONResponse({**common, "choices": [choice], "usage": USAGE}, headers=HEADERS)


async def embeddings(request: Request) -> Response:
    asked = await request.json()
    inputs = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    vector: Any = [0.1, 0.2, 0.3]
    if asked.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<3f", *vector)).decode()
    data = [{"object": "embedding", "index": n, "embedding": vector} for n in range(len(inputs))]
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return JSONResponse({"object": "list", "model": asked["model"], "data": data, "usage": usage}, headers=HEADERS)


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
    made = {"id": "file-1", "object": "file", "bytes": size, "created_at": 1, "purpose": "batch"}
    return JSONResponse({**made, "filename": "a.bin", "status": "processed"}, headers=HEADERS)


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
