"""Builds the replies of an upstream from the answers of `answer_cases`: whole or as a stream."""

from __future__ import annotations

import json
from typing import Any

from answer_cases import Case
from fake_openai import Reply, json_reply, stream_reply


def build_reply(case: Case, model: str, *, streamed: bool) -> Reply:
    """The case's answer as a model's reply."""
    if case.api == "responses":
        response = _response(case, model)
        return stream_reply(*_response_events(response)) if streamed else json_reply(response)
    completion = _completion(case, model)
    return stream_reply(*_chunks(completion)) if streamed else json_reply(completion)


def _completion(case: Case, model: str) -> dict[str, Any]:
    kind = "text_completion" if case.api == "completions" else "chat.completion"
    choices = [
        {"index": index, "finish_reason": case.finish, "logprobs": None}
        | (choice if case.api == "completions" else {"message": choice})
        for index, choice in enumerate(case.choices)
    ]
    usage = {"prompt_tokens": 12, "completion_tokens": case.tokens, "total_tokens": 12 + case.tokens}
    return {"id": "c-1", "object": kind, "created": 1, "model": model, "choices": choices, "usage": usage}


def _chunks(completion: dict[str, Any]) -> list[bytes]:
    head = {name: completion[name] for name in ("id", "created", "model")}
    head["object"] = "text_completion" if completion["object"] == "text_completion" else "chat.completion.chunk"
    chunks = []
    for choice in completion["choices"]:
        common = {"index": choice["index"], "finish_reason": None}
        if "message" not in choice:
            chunks.append([common | {"text": choice["text"]}])
        else:
            chunks += [[common | {"delta": delta}] for delta in _deltas(choice["message"])]
        final_delta = {"text": ""} if "message" not in choice else {"delta": {}}
        chunks.append([common | final_delta | {"finish_reason": choice["finish_reason"]}])
    events = [{**head, "choices": choices} for choices in chunks]
    events.append({**head, "choices": [], "usage": completion["usage"]})
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]


def _halves(text: str | None) -> list[str]:
    text = text or ""
    return [half for half in (text[: len(text) // 2], text[len(text) // 2 :]) if half]


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": half} for half in _halves(message["content"])]
    deltas += [{"refusal": half} for half in _halves(message["refusal"])]
    for index, call in enumerate(message.get("tool_calls", ())):
        kind = call["type"]
        field = "arguments" if kind == "function" else "input"
        first_delta = {"index": index, "id": call["id"], "type": kind, kind: {"name": call[kind]["name"], field: ""}}
        deltas.append({"tool_calls": [first_delta]})
        deltas += [{"tool_calls": [{"index": index, kind: {field: half}}]} for half in _halves(call[kind][field])]
    for name in ("function_call", "audio"):
        if name in message:
            deltas.append({name: message[name]})
    return deltas


def _response(case: Case, model: str) -> dict[str, Any]:
    complete = case.finish == "completed"
    output = [{"id": f"i_{index}", "status": "completed", **item} for index, item in enumerate(case.output)]
    usage = {"input_tokens": 12, "output_tokens": case.tokens, "total_tokens": 12 + case.tokens}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    return {
        "id": f"resp_{model.replace('-', '').replace('.', '')}",
        "object": "response",
        "created_at": 1,
        "model": model,
        "status": "completed" if complete else "incomplete",
        "incomplete_details": None if complete else {"reason": case.finish},
        "error": None,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def _response_events(response: dict[str, Any]) -> list[bytes]:
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {**response, "output": [], "usage": None}}]
    for index, item in enumerate(response["output"]):
        position = {"item_id": item["id"], "output_index": index}
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        for part in item.get("content", ()):
            kind, text = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
            for half in _halves(part[text]):
                delta = {"type": f"response.{kind}.delta", **position, "content_index": 0, "delta": half}
                events.append({**delta, "logprobs": []} if kind == "output_text" else delta)
        arguments_delta = {"type": "response.function_call_arguments.delta", **position}
        events += [{**arguments_delta, "delta": half} for half in _halves(item.get("arguments"))]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": f"response.{response['status']}", "response": response})
    return [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n".encode()
        for number, event in enumerate(events)
    ]
