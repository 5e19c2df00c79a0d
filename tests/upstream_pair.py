"""Upstreams on loopback that fail, refuse keys and store responses; requests to a router in front of several."""

from __future__ import annotations

import http.client
import itertools
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fake_openai import FakeOpenAI, ReceivedRequest, Reply, json_reply

MODEL = "gpt-4o"


def error(status: int, code: str | None = None, **headers: str) -> Reply:
    """An error reply in OpenAI's format."""
    return json_reply({"error": {"message": "no", "type": "x", "param": None, "code": code}}, status, **headers)


class Upstream(FakeOpenAI):
    """A small OpenAI that stores responses; a fault persists until it is removed."""

    def __init__(self, name: str, port: int = 0) -> None:
        self.fault: Reply | None = None
        self.stored: set[str] = set()  # responses, conversations and files
        self._name = name
        self._numbers = itertools.count()
        super().__init__(port)

    async def _answer(self, request: ReceivedRequest, *connection: Any) -> bool:
        return await super()._answer(request, *connection) and request.header("connection") != "close"

    def _next(self, request: ReceivedRequest) -> Reply:
        path = request.target.partition("?")[0]
        if self.fault is not None:
            return self.fault
        if request.method == "GET" and path.startswith("/v1/responses/"):
            is_stored = path.rpartition("/")[2] in self.stored
            return json_reply({"id": "x", "model": f"{MODEL}-2024-08-06"}) if is_stored else error(404)
        if path == "/v1/responses":
            return self._respond(request.json)
        if path.startswith("/v1/responses/"):
            return json_reply({"cancelled_at": self._name})
        return super()._next(request)

    def _respond(self, body: dict[str, Any]) -> Reply:
        previous, conversation = body.get("previous_response_id"), body.get("conversation")
        conversation = conversation["id"] if isinstance(conversation, dict) else conversation
        if previous is not None and previous not in self.stored:
            return error(400, "previous_response_not_found")
        files = {part["file_id"] for part in body["input"] if "file_id" in part} if previous is None else set()
        if (conversation is not None and conversation not in self.stored) or not files <= self.stored:
            return error(404)
        name = f"resp_{self._name}{next(self._numbers)}"
        self.stored.add(name)
        usage = {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}
        return json_reply({"id": name, "object": "response", "model": body["model"], "output": [], "usage": usage})


def upstream_settings(*upstreams: FakeOpenAI | str, model: str = MODEL, **options: Sequence[Any]) -> dict[str, Any]:
    """Settings with several upstreams for a model; each of `options` has one value per upstream."""
    tables = []
    for number, upstream in enumerate(upstreams):
        url = upstream if isinstance(upstream, str) else upstream.url
        table = {"base_url": url, "api_key": f"sk-{number}", "label": "abcdefgh"[number]}
        tables.append(table | {name: values[number] for name, values in options.items()})
    return {"openai_base_url": "http://127.0.0.1:9/v1", "models": {model: {"upstreams": tables}}}


def chat(text: str, model: str = MODEL, **more: Any) -> dict[str, Any]:
    """The body of a chat that begins a new conversation."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def send_chats(port: int, bodies: Iterable[dict[str, Any]], threads: int = 4) -> list[int]:
    """Send chat completions over `threads` connections at once; return the statuses."""
    remaining, statuses = iter(list(bodies)), []

    def send_waiting() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for body in remaining:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
        connection.close()

    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(send_waiting) for _ in range(threads)]:
            job.result()
    return statuses


def conversations(count: int) -> list[dict[str, Any]]:
    """Chat bodies that begin different conversations."""
    return [chat(f"What is {number} + 1?") for number in range(count)]
