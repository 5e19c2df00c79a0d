"""A fake OpenAI server: answers questions with a quality that the test sets, judges answers, and fails on demand.

It speaks real HTTP and nothing is patched: the official client and MLflow's judges talk to it as to OpenAI.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from refusals import CHAT, refusal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from calibration.questions.questions import Question

CORRECT_PREFIX, WRONG_PREFIX = "As every textbook has it:", "Hard to say, but perhaps:"
CORRECTNESS = "Consider the following question, claim and document"
MODELS = ("gpt-4o", "gpt-4o-mini")  # the models that it lists; it answers for any model
COMPLETENESS = "Consider the following user prompt and assistant response"


@dataclass
class Faults:
    """The faults to produce. Shares are of calls; a hash of the call decides, so that a retry may succeed."""

    rate_limited: float = 0.0  # 429 with `retry-after`, on the first attempt only
    retry_after: str = "0.05"
    answers_unavailable: bool = False  # every answer is a 503
    judge_unavailable: bool = False  # every judgement is a 503
    garbage_verdicts: float = 0.0  # judgements without a valid verdict, on the first attempt only
    always_garbage: bool = False
    refuse: int = 0  # the status of every reply, such as 401 or 404
    seconds: float = 0.0  # before each reply
    judge_seconds: float = 0.0
    failed_in_batch: float = 0.0  # requests of a batch that fail
    batch_refused: str = ""  # why a batch fails as a whole
    expired_in_batch: float = 0.0  # requests of a batch that end with it, unanswered


@dataclass
class Call:
    """One request as it arrived."""

    kind: str  # answer or judge
    model: str
    text: str
    began: float = field(default_factory=time.monotonic)


class FakeModels:
    """The server; `quality` gives the chance of a right answer by (model, question type)."""

    def __init__(
        self,
        questions: Iterable[Question] = (),
        quality: Callable[[str, str], float] = lambda model, question_type: 1.0,
        output_tokens: Callable[[str, str], int] = lambda model, question_type: 60,
        seed: int = 0,
        refuses: bool = False,
    ) -> None:
        questions = list(questions)
        self.questions = {question.text: question for question in questions}
        self.conversations = {_prompt({"messages": question.messages}): question for question in questions}
        self.quality = quality
        self.output_tokens = output_tokens
        self.seed = seed
        self.refuses = refuses  # whether it refuses the parameters in `refusals.json`
        self.refuses_logprobs: set[str] = set()  # models that refuse them, in words of their own
        self.refused: list[str] = []  # names of the rows of that table
        self.faults = Faults()
        self.calls: list[Call] = []
        self.billed_tokens: dict[str, list[int]] = {}  # by model: input, output
        self.in_flight = self.most_in_flight = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._attempts: dict[str, int] = {}
        self._server = uvicorn.Server(
            uvicorn.Config(self._app(), host="127.0.0.1", port=0, log_level="error", lifespan="off", ws="none")
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self) -> FakeModels:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.base_url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def successful_calls(self, kind: str) -> list[tuple[str, str]]:
        """Model and text of every call of a kind that was answered with status 200, in order."""
        return [(call.model, call.text) for call in self.calls if call.kind == kind]

    def is_correct(self, model: str, text: str, question: Question | None = None) -> bool:
        """Whether `model` answers the question with this text correctly: the truth that a calibration should find.

        Several conversations can end with the same text; `question` then selects one.
        """
        last_with_text = self.questions.get(text)
        question = question or last_with_text
        question_type = (question.question_type if question else None) or ""
        key = text if question is None or question is last_with_text else question.id
        return _hash_share(f"{self.seed}/{model}/{key}") < self.quality(model, question_type)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/files", self._upload, methods=["POST"]),
                Route("/v1/files/{file}/content", self._content),
                Route("/v1/batches", self._create_batch, methods=["POST"]),
                Route("/v1/batches", self._list_batches),
                Route("/v1/batches/{batch}", self._batch),
            ]
        )

    async def _models(self, request: Request) -> Response:
        entries = [{"id": name, "object": "model", "created": 1, "owned_by": "simulated"} for name in MODELS]
        return JSONResponse({"object": "list", "data": entries})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            judging = _is_judge(body)
            await asyncio.sleep(self.faults.judge_seconds if judging else self.faults.seconds)
            return self._fault(body, judging) or self._refusal(body) or await self._respond(body)
        finally:
            self.in_flight -= 1

    def _fault(self, body: dict[str, Any], judging: bool) -> Response | None:
        if self.faults.refuse:
            return _error(self.faults.refuse, "no such key or model", "invalid_api_key")
        if self.faults.judge_unavailable if judging else self.faults.answers_unavailable:
            return _error(503, "the engine is overloaded", "server_error")
        key = f"429/{body['model']}/{_prompt(body)}"
        if self._is_first_attempt(key) and _hash_share(key) < self.faults.rate_limited:
            return _error(429, "rate limit reached", "rate_limit_exceeded", {"retry-after": self.faults.retry_after})
        return None

    def _refusal(self, body: dict[str, Any]) -> Response | None:
        if body.get("logprobs") and body["model"] in self.refuses_logprobs:
            return _error(400, "this model has no logprobs", "bad_request")
        refused = refusal(CHAT, body) if self.refuses else None
        if refused is None:
            return None
        self.refused.append(refused.row)
        return JSONResponse(refused.body, refused.status)

    async def _respond(self, body: dict[str, Any]) -> Response:
        reply = self.reply(body)
        if not body.get("stream"):
            return JSONResponse(reply)
        choice = {"index": 0, "delta": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        head = {name: reply[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}
        events = [{**head, "choices": [choice]}, {**head, "choices": [], "usage": reply["usage"]}]
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        return Response(text, media_type="text/event-stream")

    def _is_first_attempt(self, key: str) -> bool:
        self._attempts[key] = self._attempts.get(key, 0) + 1
        return self._attempts[key] == 1

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion, which is added to the bill."""
        model, prompt = body["model"], _prompt(body)
        model_and_effort = f"{model}:{body['reasoning_effort']}" if "reasoning_effort" in body else model
        message: dict[str, Any] = {"role": "assistant", "refusal": None}
        if _is_judge(body):
            self.calls.append(Call("judge", model, prompt))
            message["content"], output_tokens = self._verdict(prompt), 40
        else:
            text = _last_user_text(body)
            self.calls.append(Call("answer", model_and_effort, text))
            question = self.conversations.get(prompt) or self.questions.get(text)
            output_tokens = self.output_tokens(model_and_effort, (question.question_type if question else None) or "")
            message |= self._answer(question, self.is_correct(model_and_effort, text, question))
        content = [{"token": message.get("content") or "", "logprob": -0.5, "bytes": None, "top_logprobs": []}]
        logprobs = {"content": content, "refusal": None} if body.get("logprobs") else None
        input_tokens = max(1, len(json.dumps(body["messages"])) // 4)
        totals = self.billed_tokens.setdefault(model, [0, 0])
        totals[0] += input_tokens
        totals[1] += output_tokens
        return {
            "id": f"chatcmpl-{len(self.calls)}",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}],
            "usage": {
                "prompt_tokens": input_tokens,
                "completion_tokens": output_tokens,
                "total_tokens": input_tokens + output_tokens,
            },
        }

    def _answer(self, question: Question | None, correct: bool) -> dict[str, Any]:
        if question is not None and question.check is not None:
            accepted = question.check.accepted_answer()
            if question.check.name == "tool_call" and correct:
                calls = json.loads(accepted)
                return {
                    "content": None,
                    "tool_calls": [
                        {
                            "id": f"call_{number}",
                            "type": "function",
                            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
                        }
                        for number, call in enumerate(calls)
                    ],
                }
            return {"content": accepted if correct else "I would rather not."}
        facts = "; ".join(question.expected_facts) if question else "nothing is known of this"
        return {"content": f"{CORRECT_PREFIX} {facts}." if correct else f"{WRONG_PREFIX} something else."}

    def _verdict(self, prompt: str) -> str:
        key = f"verdict/{prompt}"
        if self.faults.always_garbage or (
            self._is_first_attempt(key) and _hash_share(key) < self.faults.garbage_verdicts
        ):
            return json.dumps({"result": "perhaps", "rationale": "Let's think step by step."})
        result = "yes" if CORRECT_PREFIX in prompt else "no"
        return json.dumps({"result": result, "rationale": "Let's think step by step. So it is."})

    async def _upload(self, request: Request) -> Response:
        boundary = b"--" + request.headers["content-type"].split("boundary=")[1].encode()
        parts = (await request.body()).split(boundary)
        part = next(part for part in parts if b'filename="' in part)
        name = f"file-{len(self.files)}"
        self.files[name] = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        return JSONResponse(_file(name, len(self.files[name])))

    async def _content(self, request: Request) -> Response:
        return PlainTextResponse(self.files[request.path_params["file"]])

    async def _create_batch(self, request: Request) -> Response:
        body = await request.json()
        name = f"batch_{len(self.batches)}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": "24h",
            "status": "in_progress",
            "created_at": 1_700_000_000,
            "metadata": body.get("metadata"),
        }
        return JSONResponse(self.batches[name])

    async def _list_batches(self, request: Request) -> Response:
        for batch in self.batches.values():
            self._process(batch)
        return JSONResponse({"object": "list", "data": list(self.batches.values()), "has_more": False})

    async def _batch(self, request: Request) -> Response:
        batch = self.batches[request.path_params["batch"]]
        self._process(batch)
        return JSONResponse(batch)

    def _process(self, batch: dict[str, Any]) -> None:
        """End a batch, with the status and the files that OpenAI documents."""
        if batch["status"] != "in_progress" or self.faults.answers_unavailable:
            return
        if self.faults.batch_refused:
            batch["status"] = "failed"
            error = {"code": "token_limit_exceeded", "message": self.faults.batch_refused, "line": None, "param": None}
            batch["errors"] = {"object": "list", "data": [error]}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        answered: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for line in lines:
            share, key = _hash_share(line["custom_id"]), {"custom_id": line["custom_id"]}
            if share < self.faults.failed_in_batch:
                errors.append({**key, "response": {"status_code": 500, "body": {"error": {"message": "it broke"}}}})
            elif share < self.faults.failed_in_batch + self.faults.expired_in_batch:
                error = {"code": "batch_expired", "message": "This request could not be executed in time."}
                errors.append({**key, "response": None, "error": error})
            else:
                answered.append({**key, "response": {"status_code": 200, "body": self.reply(line["body"])}})
        batch["status"] = "expired" if self.faults.expired_in_batch else "completed"
        batch["request_counts"] = {"total": len(lines), "completed": len(answered), "failed": len(errors)}
        for name, rows in (("output_file_id", answered), ("error_file_id", errors)):
            if rows:
                batch[name] = f"file-{len(self.files)}"
                self.files[batch[name]] = "\n".join(map(json.dumps, rows)).encode()


def _file(name: str, size: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "file",
        "bytes": size,
        "created_at": 1_700_000_000,
        "filename": "batch.jsonl",
        "purpose": "batch",
        "status": "processed",
    }


def _error(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"message": message, "type": code, "param": None, "code": code}}, status, headers)


def _prompt(body: dict[str, Any]) -> str:
    contents = [message.get("content") or "" for message in body["messages"]]
    return "\n".join(content if isinstance(content, str) else json.dumps(content) for content in contents)


def _is_judge(body: dict[str, Any]) -> bool:
    return CORRECTNESS in _prompt(body) or COMPLETENESS in _prompt(body)


def _last_user_text(body: dict[str, Any]) -> str:
    texts = [message["content"] for message in body["messages"] if message["role"] == "user"]
    return texts[-1] if isinstance(texts[-1], str) else json.dumps(texts[-1])


def _hash_share(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6]) / 2**48
