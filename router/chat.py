"""A routed request: body -> decision -> upstream -> answer -> record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any, Protocol

import msgspec

from router import wire
from router.attempts import Attempts, Reply
from router.body import Receive, Send, read
from router.client import Watch
from router.connection import Call, CutError, Headers, StallError
from router.errors import BadKeyError, ClientLeftError, RouterError, UndecodableError
from router.journal import Journal
from router.keys import Keys
from router.planning import Plan, Stream, Surface, make_plan
from router.policy.decision import Reason
from router.policy.prices import PriceBook
from router.records import Trail, add_plan, add_reply, add_usage
from router.routing import decision_headers
from router.serving import Serving
from router.settings import Settings
from router.sse import error_event
from router.upstream import HOP_BY_HOP, Upstreams

log = logging.getLogger("router")
Scope = MutableMapping[str, Any]


class Collaborators(Protocol):
    """What a routed endpoint works with; `router.app.Router` has it all."""

    settings: Settings
    serving: Serving
    upstreams: Upstreams
    attempts: Attempts
    journal: Journal
    keys: Keys
    prices: PriceBook


class RoutedEndpoint:
    """The ASGI function of one surface."""

    def __init__(self, surface: Surface, router: Collaborators) -> None:
        self.surface = surface
        self.router = router
        self.name = surface.path[1:].decode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await Exchange(self, scope, receive, send).run()


class Exchange:
    """One request on its way. Its state is what the record will say."""

    def __init__(self, endpoint: RoutedEndpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self.endpoint = endpoint
        self.router = endpoint.router
        self.scope = scope
        self.receive = receive
        self.send = send
        self.headers: Headers = scope["headers"]
        self.named = dict(self.headers)
        self.trail = Trail(self.named)
        self.body: bytes = b""
        self.plan: Plan | None = None
        self.reply: Reply | None = None
        self.recorded = self.started = False

    async def run(self) -> None:
        """Answer, and record how it ended."""
        watch = Watch(self.receive)
        try:
            self.trail.key_id = self.router.keys.check(self.headers)
            await self._read()
            router = self.router
            self.plan = make_plan(self.endpoint.surface, router.serving, router.settings, self.body, self.named)
            watch.start()
            self.reply = await self.router.attempts.ask(self.plan.models, self._call)
            if self.reply.answer is None:
                await self._whole(self.reply)
            elif self.reply.status == 200 and self.plan.streamed:
                await self._stream(self.reply)
            else:
                await self._pass_on(self.reply)
        except RouterError as error:
            await self._refuse(error)
        except (asyncio.CancelledError, ClientLeftError):
            self._record(499, "abandoned", "the client left")
            watch.forgive()
        except Exception:  # a fault of ours: told as such, and written down where it can be found
            log.exception("request %s failed", self.trail.trace_id)
            self._record(500, "failed", "internal error")
            if self.started:
                raise
            await self._refuse(RouterError("The router failed on this request."))
        finally:
            watch.stop()
            if self.reply is not None and self.reply.answer is not None:
                self.reply.answer.close()

    # in

    async def _read(self) -> None:
        settings = self.router.settings
        if self.named.get(b"content-encoding", b"identity") != b"identity":
            raise UndecodableError("A compressed request body cannot be routed; send it as it is.")
        self.body = await read(
            self.receive, self.named.get(b"content-length"), settings.max_body_bytes, settings.timeouts.request_body
        )

    # to the upstream

    def _call(self, model: str) -> Call:
        plan = self.plan
        assert plan is not None
        upstreams = self.router.upstreams
        endpoint = upstreams.endpoint(model)
        sent = endpoint.model or model
        edits = plan.edits
        if sent != plan.name:
            edits = (*edits, wire.Edit(*plan.model_span, wire.encoded(sent)))
        query = self.scope["query_string"]
        return Call(
            b"POST",
            self.endpoint.surface.path + (b"?" + query if query else b""),
            upstreams.headers(endpoint, self.headers, readable=True),
            wire.edited(self.body, edits) if edits else (self.body,),
        )

    # out

    def _head(self, reply: Reply, *, length: int | None) -> Headers:
        assert self.plan is not None
        headers = [(n, v) for n, v in reply.headers if n not in HOP_BY_HOP and n != b"content-length"]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        headers.append((b"x-router-model", reply.model.encode("latin-1", "replace")))
        headers.append((b"x-router-trace-id", self.trail.trace_id.encode()))
        reason = Reason.FALLBACK if reply.failed_models else self.plan.reason
        headers.append((b"x-router-reason", reason.encode()))
        if self.plan.decision is not None:
            headers += decision_headers(self.plan.decision)
        return headers

    async def _start(self, status: int, headers: Headers) -> None:
        self.started = True
        if self.trail.first_byte_unix_ns is None:
            self.trail.first_byte_unix_ns = self.trail.now()
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def _whole(self, reply: Reply) -> None:
        self.trail.first_byte_unix_ns = self.trail.now()
        seen = wire.read_answer(reply.body)
        self._record(
            reply.status,
            "answered" if reply.status < 400 else "failed",
            "" if reply.status < 400 else reply.body[:2000].decode(errors="replace"),
            model=seen.model,
            usage=seen.usage,
            response=msgspec.Raw(reply.body) if seen.id else None,
        )
        await self._start(reply.status, self._head(reply, length=len(reply.body)))
        await self.send({"type": "http.response.body", "body": reply.body})

    async def _stream(self, reply: Reply) -> None:
        assert self.plan is not None and reply.answer is not None
        stream = self.endpoint.surface.stream(self.plan.strips_usage)
        await self._start(reply.status, self._head(reply, length=None))
        idle = self.router.settings.timeouts.idle
        chunk, problem = reply.body, ""
        try:
            while chunk:
                passed = stream.feed(chunk)
                if stream.done:  # the client may leave as soon as it reads this
                    self._record_stream(stream, "failed" if stream.error else "answered", stream.error)
                if passed:
                    await self.send({"type": "http.response.body", "body": passed, "more_body": True})
                chunk = await reply.answer.read(idle)
            if not stream.ended:
                problem = "the upstream ended the stream early"
        except (CutError, StallError) as error:
            problem = "" if stream.ended else str(error)
        if problem:
            self._record_stream(stream, "cut", problem)
            last = stream.rest() and b"\n\n"
            last += error_event(f"The answer was cut off: {problem}.", "upstream_cut")
            await self.send({"type": "http.response.body", "body": last, "more_body": True})
            return  # without the end of the body: the server breaks the connection, so that nobody takes it for whole
        self._record_stream(stream, "failed" if stream.error else "answered", stream.error)
        await self.send({"type": "http.response.body", "body": stream.rest()})

    async def _pass_on(self, reply: Reply) -> None:
        """An answer that is neither a stream as we know them nor small enough to be read."""
        assert reply.answer is not None
        await self._start(reply.status, self._head(reply, length=None))
        chunk = reply.body
        try:
            while chunk:
                await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
                chunk = await reply.answer.read(self.router.settings.timeouts.idle)
        except (CutError, StallError) as error:
            self._record(reply.status, "cut", str(error))
            return
        self._record(reply.status, "answered" if reply.status < 400 else "failed", "")
        await self.send({"type": "http.response.body", "body": b""})

    async def _refuse(self, error: RouterError) -> None:
        if not isinstance(error, BadKeyError):  # strangers write nothing to our disk
            self._record(error.status, "failed", error.message)
        body = error.body()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-router-trace-id", self.trail.trace_id.encode()),
        ]
        await self._start(error.status, headers)
        await self.send({"type": "http.response.body", "body": body})

    # the record

    def _record_stream(self, stream: Stream, outcome: str, error: str) -> None:
        if not self.recorded:
            self._record(200, outcome, error, model=stream.model, usage=stream.usage, response=stream.content())

    def _record(
        self,
        status: int,
        outcome: str,
        error: str,
        *,
        model: str = "",
        usage: dict[str, Any] | None = None,
        response: Any = None,
    ) -> None:
        if self.recorded:
            return
        self.recorded = True
        router = self.router
        record = self.trail.record(self.endpoint.name, status, outcome, error)
        record.response_model, record.simulated = model, router.upstreams.default.origin is None
        if self.plan is not None:
            add_plan(record, self.plan)
        if self.reply is not None:
            add_reply(record, self.reply)
        if usage is not None:
            add_usage(record, router.prices, model, usage)
        if router.settings.record_content != "none" and self.plan is not None:
            record.request, record.response = msgspec.Raw(self.body), response
        router.journal.append(record)
