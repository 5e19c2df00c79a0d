"""A fake OpenAI server that refuses the requests that the real models refuse, according to `refusals.json`.

It is a `FakeOpenAI`: replies that a test queues with `enqueue` come first, and `received` holds every request. Real
clients use it as a separate process:

    python tests/refusing_openai.py --port 9000 [--retired gpt-4o ...] [--context-tokens gpt-6-luna=2000 ...]
                                     [--alias auto=gpt-6-luna ...]

The process prints its base URL, then each refusal as a line of JSON. GET /bodies and GET /refusals list the requests
and the refusals.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from typing import Any

from clients.upstream import (
    WORDS,
    build_example,
    chat_chunks,
    chat_object,
    choose_tool_call,
    response_events,
    response_object,
)
from fake_openai import FakeOpenAI, ReceivedRequest, Reply, json_reply, stream_reply
from refusals import CHAT, MODELS, RESPONSES, SNAPSHOTS, Refusal, effort, refusal, tokens

NOT_JSON = "We could not parse the JSON body of your request."


class RefusingOpenAI(FakeOpenAI):
    """The server. Tests set `retired`, `context_tokens` and the token counts; they read `bodies` and `refusals`."""

    def __init__(self, port: int = 0) -> None:
        self.retired: set[str] = set()  # retired models answer 404 and are not listed
        self.context_tokens: dict[str, int] = {}  # maximum input tokens of a model, where a test sets fewer
        self.cached_tokens, self.cache_write_tokens, self.reasoning_tokens = 4, 8, 16
        self.refusals: list[Refusal] = []
        super().__init__(port)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The body of every request so far, refused or not, in order of arrival."""
        return [request.json for request in list(self.received) if request.method == "POST"]

    def retire_until(self, day: str) -> None:
        """Retire every model whose shutdown date is on or before the day, written YYYY-MM-DD."""
        self.retired |= {name for name, model in MODELS.items() if (model["shutdown_date"] or "9999") <= day}

    def _next(self, request: ReceivedRequest) -> Reply:
        path = request.target.partition("?")[0].strip("/").removeprefix("v1/")
        if request.method == "GET":
            return self._look_up(path)
        if self._queue or path not in (CHAT, RESPONSES):
            return super()._next(request)
        try:
            body = request.json
        except ValueError:
            return _invalid_request(NOT_JSON, None, None)
        refused = refusal(path, body, frozenset(self.retired), self.context_tokens)
        if refused is not None:
            self.refusals.append(refused)
            return _refusal_reply(path, body, refused)
        if path == CHAT and not body.get("messages"):
            return _invalid_request("Missing required parameter: 'messages'.", "messages", "missing_required_parameter")
        return self._chat(body) if path == CHAT else self._response(body)

    def _look_up(self, path: str) -> Reply:
        if path in ("bodies", "refusals"):
            return json_reply(
                self.bodies if path == "bodies" else [asdict(refused_request) for refused_request in self.refusals]
            )
        entries = {name: _model(name) for name in MODELS if name not in self.retired}
        if path == "models":
            return json_reply({"object": "list", "data": list(entries.values())})
        name = path.removeprefix("models/")
        if name in entries:
            return json_reply(entries[name])
        refused = refusal(CHAT, {"model": name}, frozenset(self.retired))
        return json_reply(refused.body if refused else {}, 404)

    def _chat(self, body: dict[str, Any]) -> Reply:
        last_message = body["messages"][-1]
        call = choose_tool_call(body.get("tools"), body.get("tool_choice")) if last_message["role"] == "user" else None
        response_format = body.get("response_format") or {}
        words = _words((response_format.get("json_schema") or {}).get("schema"))
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(words)
        finish = "tool_calls" if call else "length" if limit < len(words) else "stop"
        common = {"id": "chatcmpl-refusing", "created": 1_800_000_000, "model": body["model"]}
        common |= {"system_fingerprint": "fp_refusing", "service_tier": "default"}
        usage = self._chat_usage(body, len(words[:limit]))
        if not body.get("stream"):
            return json_reply(chat_object(body, common, words[:limit], call, finish, usage))
        streamed_usage = usage if (body.get("stream_options") or {}).get("include_usage") else None
        chunks = chat_chunks(common, words[:limit], call, finish, body.get("n") or 1, streamed_usage)
        return stream_reply(*(_event(chunk) for chunk in chunks), b"data: [DONE]\n\n")

    def _response(self, body: dict[str, Any]) -> Reply:
        input_items = body.get("input")
        last_item = input_items[-1] if isinstance(input_items, list) and input_items else {"role": "user"}
        call = choose_tool_call(body.get("tools"), body.get("tool_choice")) if last_item.get("role") == "user" else None
        words = _words(((body.get("text") or {}).get("format") or {}).get("schema"))
        response = response_object(body, words, call, self._response_usage(body, len(words)))
        response["id"] = f"resp_{len(self.received)}"  # clients identify the turns of a conversation by it
        if not body.get("stream"):
            return json_reply(response)
        return stream_reply(*_named_events(response_events(response, words, call)))

    def _counts(self, endpoint: str, body: dict[str, Any]) -> tuple[int, int, int, int]:
        """Tokens of the input, read from the cache, written to it, and spent on reasoning."""
        input_tokens = sum(tokens(endpoint, body))
        cached = min(self.cached_tokens, input_tokens)
        cache_writes = (
            min(self.cache_write_tokens, input_tokens - cached) if MODELS[body["model"]]["reports_cache_writes"] else 0
        )
        return (
            input_tokens,
            cached,
            cache_writes,
            0 if effort(endpoint, body)[0] in (None, "none") else self.reasoning_tokens,
        )

    def _chat_usage(self, body: dict[str, Any], words: int) -> dict[str, Any]:
        input_tokens, cached, cache_writes, reasoning = self._counts(CHAT, body)
        return {
            "prompt_tokens": input_tokens,
            "completion_tokens": words + reasoning,
            "total_tokens": input_tokens + words + reasoning,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_writes, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
        }

    def _response_usage(self, body: dict[str, Any], words: int) -> dict[str, Any]:
        input_tokens, cached, cache_writes, reasoning = self._counts(RESPONSES, body)
        return {
            "input_tokens": input_tokens,
            "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_writes},
            "output_tokens": words + reasoning,
            "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": input_tokens + words + reasoning,
        }


def _refusal_reply(path: str, body: dict[str, Any], refused: Refusal) -> Reply:
    """The reply to a refused request: an event if a streamed response begins before its input is counted."""
    if path == RESPONSES and body.get("stream") and refused.body["error"]["code"] == "context_length_exceeded":
        first_events = response_events(response_object(body, WORDS, None, {}), WORDS, None)
        error = {"type": "error", "sequence_number": 2, "error": refused.body["error"]}
        return stream_reply(*_named_events([*islice(first_events, 2), error]))
    return json_reply(refused.body, refused.status, x_request_id="req_refusing")


def _words(schema: Any) -> tuple[str, ...]:
    return (json.dumps(build_example(schema, schema)),) if schema else WORDS


def _event(event: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(event)}\n\n".encode()


def _named_events(stream: Iterable[dict[str, Any]]) -> list[bytes]:
    return [f"event: {event['type']}\n".encode() + _event(event) for event in stream]


def _invalid_request(message: str, param: str | None, code: str | None) -> Reply:
    """The reply to an invalid request."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return json_reply({"error": error}, 400)


def _model(name: str) -> dict[str, Any]:
    shutdown = MODELS[name]["shutdown_date"]
    return {"id": name, "object": "model", "created": 1, "owned_by": "system", "shutdown_date": shutdown}


class _PrintingList(list[Refusal]):
    """A list that prints what is appended."""

    def append(self, refused: Refusal) -> None:
        super().append(refused)
        sys.stdout.write(json.dumps(asdict(refused)) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--retired", nargs="*", default=[], metavar="MODEL")
    parser.add_argument("--context-tokens", nargs="*", default=[], metavar="MODEL=TOKENS")
    parser.add_argument("--alias", nargs="*", default=[], metavar="NAME=MODEL", help="another name for a model")
    arguments = parser.parse_args()
    server = RefusingOpenAI(arguments.port)
    server.refusals = _PrintingList()
    server.retired |= set(arguments.retired)
    for alias, model in (pair.split("=") for pair in arguments.alias):
        SNAPSHOTS[alias], MODELS[alias] = model, MODELS[model]
    server.context_tokens |= {
        name: int(count) for name, count in (pair.split("=") for pair in arguments.context_tokens)
    }
    sys.stdout.write(server.url + "\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
