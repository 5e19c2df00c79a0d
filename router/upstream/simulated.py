"""The built-in upstream, which is used if no API key is configured.

It follows OpenAI's protocol. Every answer is marked as simulated in its text, in `system_fingerprint` and in a header.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from router.errors import error_body
from router.policy.refusals import INCLUDED_LOGPROBS
from router.upstream.calls import Call, Headers

FINGERPRINT = "fp_simulated"
MODELS = ("gpt-4o", "gpt-4o-mini")
NOTICE = "This answer is simulated, because no OPENAI_API_KEY is set."
_SECONDS_PER_PIECE = 0.002
_FILLER = (
    "A real model would now answer the question step by step, give its reasons, and end with the result. "
    "The number of words here is plausible and their meaning is not. "
)


class SimulatedAnswer:
    """An answer that is generated without a connection."""

    def __init__(self, status: int, content_type: bytes, pieces: list[bytes]) -> None:
        self.status = status
        self.headers: Headers = [(b"content-type", content_type), (b"x-simulated", b"true")]
        if content_type == b"application/json":
            self.headers.append((b"content-length", b"%d" % sum(map(len, pieces))))
        self._streamed = len(pieces) > 1
        self._pieces = iter(pieces)

    async def read(self, seconds: float) -> bytes:  # noqa: ARG002  never waits that long
        """See `Answer`."""
        if self._streamed:
            await asyncio.sleep(_SECONDS_PER_PIECE)
        return next(self._pieces, b"")

    def close(self) -> None:
        """See `Answer`."""
        self._pieces = iter(())


class SimulatedUpstream:
    """Answers chat completions, legacy completions, responses and the list of models."""

    async def send(self, call: Call) -> SimulatedAnswer:
        """Answer `call`."""
        path = call.path.partition(b"?")[0]
        if path == b"/models" and call.method == b"GET":
            listed = [{"id": m, "object": "model", "created": 1715367049, "owned_by": "simulated"} for m in MODELS]
            return _json(200, {"object": "list", "data": listed})
        answers = {b"/chat/completions": _chat, b"/completions": _completion, b"/responses": _response}
        if call.method != b"POST" or path not in answers:
            return _error(404, f"The simulated upstream has no {call.method.decode()} {path.decode('latin-1')}.")
        body = await _read(call)
        try:
            return answers[path](msgspec.json.decode(body))
        except (msgspec.DecodeError, TypeError, AttributeError, ValueError) as error:
            return _error(400, f"The simulated upstream cannot read this request: {error}.")


async def _read(call: Call) -> bytes:
    if isinstance(call.body, AsyncIterator):
        return b"".join([piece async for piece in call.body])
    return b"".join(call.body)


def _json(status: int, value: Any) -> SimulatedAnswer:
    return SimulatedAnswer(status, b"application/json", [msgspec.json.encode(value)])


def _error(status: int, message: str) -> SimulatedAnswer:
    return SimulatedAnswer(
        status, b"application/json", [error_body(message, "invalid_request_error", None, "simulated_upstream")]
    )


def _events(events: Iterator[Any], *, named: bool = False) -> SimulatedAnswer:
    pieces = []
    for event in events:
        name = b"event: " + event["type"].encode() + b"\n" if named else b""
        pieces.append(name + b"data: " + msgspec.json.encode(event) + b"\n\n")
    if not named:
        pieces.append(b"data: [DONE]\n\n")
    return SimulatedAnswer(200, b"text/event-stream; charset=utf-8", pieces)


class _Content:
    """The simulated text for a prompt, and its number of tokens. `limit` is the maximum number of output tokens."""

    def __init__(self, body: Mapping[str, Any], prompt: str, limit: int | None) -> None:
        digest = hashlib.sha256(prompt.encode()).digest()
        self.id = digest[:12].hex()
        self.model = str(body["model"])
        wanted = 30 + digest[0] * (2 if self.model.endswith("mini") else 1)
        words = [NOTICE, f"{self.model} received:", f'"{prompt[-200:].strip()}".']
        if _wants_json(body):
            words = [msgspec.json.encode({"simulated": True, "notice": NOTICE, "model": self.model}).decode()]
        else:
            words += _FILLER.split() * (1 + wanted // 30)
        self.words = " ".join(words).split(" ")[: max(wanted, 24)]
        self.cut = limit is not None and len(self.words) > limit
        if self.cut:
            self.words = self.words[:limit]
        self.input_tokens = len(prompt) // 4 + 8
        self.output_tokens = len(self.words)
        self._logprob = -digest[1] / 64  # of every token

    @property
    def text(self) -> str:
        return " ".join(self.words)

    @property
    def tokens(self) -> list[str]:
        return [word if n == 0 else " " + word for n, word in enumerate(self.words)]

    def logprobs(self, tokens: Iterable[str]) -> list[dict[str, Any]]:
        """The log probabilities of tokens, as OpenAI sends them."""
        return [{"token": t, "logprob": self._logprob, "bytes": [*t.encode()], "top_logprobs": []} for t in tokens]

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.input_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }


def _wants_json(body: Mapping[str, Any]) -> bool:
    return bool((body.get("response_format") or {}).get("type", "text") != "text")


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text", "")) for part in content or () if isinstance(part, Mapping))


def _chat_logprobs(body: Mapping[str, Any], content: _Content, tokens: Iterable[str]) -> dict[str, Any] | None:
    return {"content": content.logprobs(tokens), "refusal": None} if body.get("logprobs") else None


def _chat(body: Mapping[str, Any]) -> SimulatedAnswer:
    prompt = "\n".join(_text(message.get("content")) for message in body["messages"])
    content = _Content(body, prompt, body.get("max_completion_tokens") or body.get("max_tokens"))
    finish = "length" if content.cut else "stop"
    common = {
        "id": f"chatcmpl-simulated-{content.id}",
        "object": "chat.completion.chunk" if body.get("stream") else "chat.completion",
        "created": int(time.time()),
        "model": content.model,
        "system_fingerprint": FINGERPRINT,
    }
    if not body.get("stream"):
        message: dict[str, Any] = {"role": "assistant", "content": content.text, "refusal": None, "annotations": []}
        logprobs = _chat_logprobs(body, content, content.tokens)
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": finish}
        return _json(200, {**common, "choices": [choice], "usage": content.usage(), "service_tier": "default"})
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def chunks() -> Iterator[Any]:
        no_usage = {"usage": None} if with_usage else {}
        deltas: list[tuple[dict[str, Any], Any]] = [({"role": "assistant", "content": "", "refusal": None}, None)]
        deltas += [({"content": token}, _chat_logprobs(body, content, [token])) for token in content.tokens]
        for delta, logprobs in deltas:
            choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}
            yield {**common, "choices": [choice], **no_usage}
        yield {**common, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}], **no_usage}
        if with_usage:
            yield {**common, "choices": [], "usage": content.usage()}

    return _events(chunks())


def _completion(body: Mapping[str, Any]) -> SimulatedAnswer:
    prompt = body.get("prompt", "")
    content = _Content(body, prompt if isinstance(prompt, str) else str(prompt), body.get("max_tokens", 16))
    common = {
        "id": f"cmpl-simulated-{content.id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": content.model,
        "system_fingerprint": FINGERPRINT,
    }
    finish = "length" if content.cut else "stop"
    if not body.get("stream"):
        choice = {"index": 0, "text": content.text, "logprobs": None, "finish_reason": finish}
        return _json(200, {**common, "choices": [choice], "usage": content.usage()})
    with_usage = bool((body.get("stream_options") or {}).get("include_usage"))

    def chunks() -> Iterator[Any]:
        no_usage = {"usage": None} if with_usage else {}
        for n, word in enumerate(content.words):
            end = finish if n + 1 == len(content.words) else None
            text = word if n == 0 else " " + word
            yield {**common, "choices": [{"index": 0, "text": text, "finish_reason": end}], **no_usage}
        if with_usage:
            yield {**common, "choices": [], "usage": content.usage()}

    return _events(chunks())


def _response(body: Mapping[str, Any]) -> SimulatedAnswer:
    items = body.get("input", "")
    prompt = items if isinstance(items, str) else "\n".join(_text(item.get("content")) for item in items)
    content = _Content(body, prompt, body.get("max_output_tokens"))
    has_logprobs = INCLUDED_LOGPROBS in (body.get("include") or ())
    logprobs = content.logprobs(content.tokens) if has_logprobs else []
    item: dict[str, Any] = {
        "id": f"msg_simulated_{content.id}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": content.text, "annotations": [], "logprobs": logprobs}],
    }
    response = {
        "id": f"resp_simulated_{content.id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "incomplete" if content.cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if content.cut else None,
        "error": None,
        "instructions": None,
        "metadata": {"simulated": "true"},
        "model": content.model,
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": content.input_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": content.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": content.input_tokens + content.output_tokens,
        },
    }
    if not body.get("stream"):
        return _json(200, response)
    return _events(_numbered(_response_events(content, item, response)), named=True)


def _response_events(content: _Content, item: dict[str, Any], response: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**response, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    empty = {**item, "status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": 0, "item": empty}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    logprobs = item["content"][0]["logprobs"]
    yield {"type": "response.content_part.added", **place, "part": part}
    for token in content.tokens:
        of_token = content.logprobs([token]) if logprobs else []
        yield {"type": "response.output_text.delta", **place, "delta": token, "logprobs": of_token}
    yield {"type": "response.output_text.done", **place, "text": content.text, "logprobs": logprobs}
    yield {"type": "response.content_part.done", **place, "part": item["content"][0]}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": f"response.{response['status']}", "response": response}


def _numbered(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}
