"""Upstreams on loopback that fail, refuse keys and keep responses, and requests to a router in front of several."""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fake_openai import FakeOpenAI, Received, Say, json_answer

MODEL = "gpt-4o"


def error(status: int, code: str | None = None, **headers: str) -> Say:
    """An error as OpenAI words it."""
    return json_answer({"error": {"message": "no", "type": "x", "param": None, "code": code}}, status, **headers)


class Upstream(FakeOpenAI):
    """A small OpenAI with a fault that stays until it is taken away, and with responses that it stores."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.fault: Say | None = None
        self.stored: set[str] = set()  # responses, conversations and files
        self._name = name
        self._numbers = itertools.count()
        super().__init__(port)

    async def _answer(self, request: Received, *connection: Any) -> bool:
        return await super()._answer(request, *connection) and request.header("connection") != "close"

    def _next(self, request: Received) -> Say:
        path = request.target.partition("?")[0]
        if self.fault is not None:
            return self.fault
        if request.method == "GET" and path.startswith("/v1/responses/"):
            found = path.rpartition("/")[2] in self.stored
            return json_answer({"id": "x", "model": f"{MODEL}-2024-08-06"}) if found else error(404)
        if path == "/v1/responses":
            return self._respond(request.json)
        if path.startswith("/v1/responses/"):
            return json_answer({"cancelled_at": self._name})
        return super()._next(request)

    def _respond(self, asked: dict[str, Any]) -> Say:
        previous, conversation = asked.get("previous_response_id"), asked.get("conversation")
        conversation = conversation["id"] if isinstance(conversation, dict) else conversation
        if previous is not None and previous not in self.stored:
            return error(400, "previous_response_not_found")
        files = {part["file_id"] for part in asked["input"] if "file_id" in part} if previous is None else set()
        if (conversation is not None and conversation not in self.stored) or not files <= self.stored:
            return error(404)
        made = f"resp_{self._name}{next(self._numbers)}"
        self.stored.add(made)
        usage = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}
        return json_answer({"id": made, "object": "response", "model": asked["model"], "output": [], "usage": usage})


def of(*upstreams: FakeOpenAI | str, model: str = MODEL, **each: Sequence[Any]) -> dict[str, Any]:
    """Settings with several upstreams for a model; `each` has a value for every upstream."""
    tables = []
    for at, upstream in enumerate(upstreams):
        url = upstream if isinstance(upstream, str) else upstream.url
        table = {"base_url": url, "api_key": f"sk-{at}", "label": "abcdefgh"[at]}
        tables.append(table | {name: values[at] for name, values in each.items()})
    return {"openai_base_url": "http://127.0.0.1:9/v1", "models": {model: {"upstreams": tables}}}


def chat(text: str, model: str = MODEL, **more: Any) -> dict[str, Any]:
    """A chat body that begins a conversation of its own."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def ask_all(port: int, bodies: Iterable[dict[str, Any]], threads: int = 4) -> list[int]:
    """The statuses of chat completions that are asked for over `threads` connections at once."""
    waiting, statuses = iter(list(bodies)), []

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for body in waiting:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
    return statuses


def conversations(count: int) -> list[dict[str, Any]]:
    """Bodies that begin different conversations."""
    return [chat(f"What is {number} + 1?") for number in range(count)]
