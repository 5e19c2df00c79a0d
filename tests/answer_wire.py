"""The answers of `answer_cases` as an upstream sends them: whole, or as a stream."""

from __future__ import annotations

import json
from typing import Any

from answer_cases import Case
from fake_openai import Say, events, json_answer


def as_sent(case: Case, model: str, *, streamed: bool) -> Say:
    """The case's answer, by a model."""
    if case.api == "responses":
        response = _response(case, model)
        return events(*_response_events(response)) if streamed else json_answer(response)
    completion = _completion(case, model)
    return events(*_chunks(completion)) if streamed else json_answer(completion)


def _completion(case: Case, model: str) -> dict[str, Any]:
    kind = "text_completion" if case.api == "completions" else "chat.completion"
    choices = [
        {"index": at, "finish_reason": case.finish, "logprobs": None}
        | (said if case.api == "completions" else {"message": said})
        for at, said in enumerate(case.choices)
    ]
    usage = {"prompt_tokens": 12, "completion_tokens": case.tokens, "total_tokens": 12 + case.tokens}
    return {"id": "c-1", "object": kind, "created": 1, "model": model, "choices": choices, "usage": usage}


def _chunks(completion: dict[str, Any]) -> list[bytes]:
    head = {name: completion[name] for name in ("id", "created", "model")}
    head["object"] = "text_completion" if completion["object"] == "text_completion" else "chat.completion.chunk"
    chunks = []
    for choice in completion["choices"]:
        at = {"index": choice["index"], "finish_reason": None}
        if "message" not in choice:
            chunks.append([at | {"text": choice["text"]}])
        else:
            chunks += [[at | {"delta": delta}] for delta in _deltas(choice["message"])]
        last = {"text": ""} if "message" not in choice else {"delta": {}}
        chunks.append([at | last | {"finish_reason": choice["finish_reason"]}])
    written = [{**head, "choices": choices} for choices in chunks]
    written.append({**head, "choices": [], "usage": completion["usage"]})
    return [f"data: {json.dumps(each)}\n\n".encode() for each in written] + [b"data: [DONE]\n\n"]


def _halves(text: str | None) -> list[str]:
    text = text or ""
    return [half for half in (text[: len(text) // 2], text[len(text) // 2 :]) if half]


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None}]
    deltas += [{"content": half} for half in _halves(message["content"])]
    deltas += [{"refusal": half} for half in _halves(message["refusal"])]
    for at, call in enumerate(message.get("tool_calls", ())):
        kind = call["type"]
        field = "arguments" if kind == "function" else "input"
        begun = {"index": at, "id": call["id"], "type": kind, kind: {"name": call[kind]["name"], field: ""}}
        deltas.append({"tool_calls": [begun]})
        deltas += [{"tool_calls": [{"index": at, kind: {field: half}}]} for half in _halves(call[kind][field])]
    for name in ("function_call", "audio"):
        if name in message:
            deltas.append({name: message[name]})
    return deltas


def _response(case: Case, model: str) -> dict[str, Any]:
    complete = case.finish == "completed"
    output = [{"id": f"i_{at}", "status": "completed", **item} for at, item in enumerate(case.output)]
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
    made: list[dict[str, Any]] = [{"type": "response.created", "response": {**response, "output": [], "usage": None}}]
    for at, item in enumerate(response["output"]):
        where = {"item_id": item["id"], "output_index": at}
        made.append({"type": "response.output_item.added", "output_index": at, "item": item})
        for part in item.get("content", ()):
            kind, text = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
            for half in _halves(part[text]):
                delta = {"type": f"response.{kind}.delta", **where, "content_index": 0, "delta": half}
                made.append({**delta, "logprobs": []} if kind == "output_text" else delta)
        begun = {"type": "response.function_call_arguments.delta", **where}
        made += [{**begun, "delta": half} for half in _halves(item.get("arguments"))]
        made.append({"type": "response.output_item.done", "output_index": at, "item": item})
    made.append({"type": f"response.{response['status']}", "response": response})
    return [
        f"event: {each['type']}\ndata: {json.dumps({**each, 'sequence_number': n})}\n\n".encode()
        for n, each in enumerate(made)
    ]
