"""A routed request: body -> decision -> upstream -> answer -> record."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from router.adaptation.adapter import Adapter
from router.admission import Admission, AdmittedRequest, Reserve
from router.client.body import Body, Receive, Send, read_body
from router.client.disconnect import DisconnectWatch
from router.client.keys import Caller, Keys, lacking
from router.errors import (
    BadKeyError,
    BadRequestError,
    ClientDisconnectedError,
    CompressedBodyError,
    QuotaError,
    RouterError,
)
from router.journal.writer import Journal
from router.limits.account import Booking
from router.limits.budgets import Budgets
from router.limits.limiter import Limiter
from router.metrics import Meter
from router.planning.affinity import conversation_id
from router.planning.plan import Plan, Request, Stream, Surface, make_plan, read_request
from router.policy.prices import PriceBook
from router.request.continuation import Continuations
from router.request.records import MAX_ERROR_BYTES, NOTHING_TOLD, Told, Trail, add_all, add_content, own_error, tidy
from router.request.response_headers import answer_head, decision_head, with_rates
from router.request.sending import Sending
from router.request.verification import Verification, Verifier
from router.serving.policy import Serving
from router.settings import Settings
from router.upstream.attempts import Attempts
from router.upstream.calls import CutError, Headers, StallError
from router.upstream.endpoints import Endpoint
from router.upstream.replies import Reply
from router.upstream.upstreams import Upstreams
from router.wire import bodies
from router.wire.head_tail import HeadTailBuffer
from router.wire.sse import KEEP_ALIVE, error_event
from router.wire.text import repair_text

log = logging.getLogger("router")
Scope = MutableMapping[str, Any]
UNCOUNTED_BYTES = 64 * 1024  # of a piece of a stream, which is not worth counting
READ_AT_ONCE = 256 * 1024  # bytes; a longer body is read in a thread
_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")


class Collaborators(Protocol):
    """What a routed endpoint works with; `router.app.Router` has it all."""

    settings: Settings
    serving: Serving
    upstreams: Upstreams
    attempts: Attempts
    adapter: Adapter
    admission: Admission
    continuations: Continuations
    journal: Journal
    keys: Keys
    limiter: Limiter
    budgets: Budgets
    meter: Meter
    prices: PriceBook
    verifier: Verifier


class RoutedEndpoint:
    """The ASGI function of one surface."""

    def __init__(self, surface: Surface, router: Collaborators) -> None:
        self.surface = surface
        self.router = router
        self.name = surface.name
        self.right = surface.name.partition("/")[0]  # that a key needs

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
        self.body = Body.from_bytes(b"")
        self.plan: Plan | None = None
        self.reply: Reply | None = None
        self.holder: Endpoint | None = None  # the upstream that holds what the request goes on with
        self.unbilled_attempts: list[str] = []  # models of failed attempts that may be billed
        self.admitted: AdmittedRequest | None = None
        self.booking: Booking | None = None  # of a key with limits
        self.verification: Verification | None = None
        self.left: Callable[[], bool] | None = scope.get("router.is_disconnected")
        self.recorded = self.started = False

    async def run(self) -> None:
        """Answer, and record how it ended."""
        watch = DisconnectWatch(self.receive)
        try:
            caller = self.router.keys.check(self.headers)
            self.trail.belongs_to(caller.key_id, alone=self.router.keys.alone)
            if self.endpoint.right not in caller.rights:
                raise lacking(self.endpoint.right)
            self.admitted = self.router.admission.admit()
            await self._read(self.admitted.reserve)
            watch.start()
            await self.router.admission.wait_turn()
            self.trail.read_unix_ns = self.trail.now()
            self.plan = await self._planned(caller)
            if caller.limits is not None:
                given = caller, self.plan, self.endpoint.surface, self.body.skeleton, self.trail.read_unix_ns
                self.booking = await self.router.limiter.hold(*given)
            self.trail.asked_unix_ns = self.trail.now()
            reply = await self._asked(self.plan)
            self.trail.answered_unix_ns = self.trail.now()
            if reply.answer is not None and reply.status == 200 and self.plan.streamed:
                await self._stream(self.plan, reply)
            elif reply.answer is None and not self.started:
                await self._whole(self.plan, reply)
            else:
                await self._pass_on(reply)
        except RouterError as error:
            await self._refuse(error)
        except (asyncio.CancelledError, ClientDisconnectedError):
            await self._record(499, "abandoned", "the client left")
            watch.uncancel()
        except Exception:  # a fault of ours: told as such, and written down where it can be found
            log.exception("request %s failed", self.trail.trace_id)
            await self._refuse(RouterError("The router failed on this request."))
        finally:
            watch.stop()
            if self.reply is not None and self.reply.answer is not None:
                self.reply.answer.close()
            if self.admitted is not None:
                self.admitted.release()

    # in

    async def _read(self, hold: Reserve) -> None:
        settings = self.router.settings
        if self.named.get(b"content-encoding", b"identity") != b"identity":
            raise CompressedBodyError("A compressed request body cannot be routed; send it as it is.")
        declared = self.named.get(b"content-length")
        self.body = await read_body(
            self.receive, declared, settings.max_body_bytes, settings.timeouts.request_body, hold
        )

    async def _planned(self, caller: Caller) -> Plan:
        router = self.router
        large = len(self.body.skeleton.text) > READ_AT_ONCE
        request = await asyncio.to_thread(self._request) if large else self._request()
        if caller.models:
            forced = self.named.get(b"x-router-model", b"").decode("latin-1")
            caller.require_model(forced or request.name, router.settings.routed_models)
        continued = None
        if "previous_response_id" in request.fields:
            made = await router.continuations.found(request, self.headers)
            if made is not None:
                continued, self.holder = made
        elif "conversation" in request.fields:
            self.holder = router.continuations.in_conversation(request)
        surface, routed = self.endpoint.surface, router.settings.routed_models
        floor = None
        if caller.limits is not None and caller.limits.floor is not None:
            floor = router.limiter.floor(caller, self.trail.read_unix_ns)
        given = surface, router.serving, router.adapter, routed, request, self.named, continued, floor
        return await asyncio.to_thread(make_plan, *given) if large else make_plan(*given)

    def _request(self) -> Request:
        skeleton, surface = self.body.skeleton, self.endpoint.surface
        try:
            return read_request(skeleton.text, surface)
        except BadRequestError:
            text = repair_text(skeleton.text)
            if text == skeleton.text:
                raise
        self.body = replace(self.body, skeleton=replace(skeleton, text=text))
        return read_request(text, surface)

    # to the upstream

    async def _asked(self, plan: Plan) -> Reply:
        ask = self._ask_verified if plan.verify else self._ask
        seconds = self.router.settings.keep_alive_seconds
        if not seconds or not plan.streamed:
            return await ask(plan)
        task = asyncio.ensure_future(ask(plan))
        try:
            while not (await asyncio.wait([task], timeout=seconds))[0]:
                if not self.started:
                    await self._start(200, [_EVENT_STREAM, *decision_head(plan, None, self.trail.trace_id)])
                await self.send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})
        finally:
            task.cancel()
        return task.result()

    async def _ask(self, plan: Plan) -> Reply:
        """The reply is kept at once: the client may leave between its coming and its being waited for."""
        assert self.admitted is not None
        router, surface, query = self.router, self.endpoint.surface, self.scope["query_string"]
        sending = Sending(
            plan,
            surface.name,
            surface.path + (b"?" + query if query else b""),
            self.headers,
            self.body.pieces,
            self.body.skeleton,
            router.upstreams,
            router.adapter,
            router.serving.policy.rules.models,
            router.settings.fallbacks,
            self.left,
            self.holder,
        )
        self.reply = reply = await router.attempts.send(sending, self.unbilled_attempts, self.admitted.reserve)
        reply.adapted = sending.told(reply.model)
        return reply

    async def _ask_verified(self, plan: Plan) -> Reply:
        """The answer that holds, and how it was found in `verification`."""
        assert self.admitted is not None
        given = plan, self.endpoint.surface, self._ask, self.admitted.reserve, self.trail.started_unix_ns
        self.verification = Verification(self.router.verifier, *given)
        self.reply = reply = await self.verification.answer(await self._ask(plan))
        return reply

    # out

    async def _start(self, status: int, headers: Headers) -> None:
        self.started = True
        if self.trail.first_byte_unix_ns is None:
            self.trail.first_byte_unix_ns = self.trail.now()
        if self.booking is not None and status < 400:
            headers = with_rates(headers, self.booking.account.rates())
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    def _echo(self, plan: Plan) -> str | None:
        return plan.request.name if self.router.settings.echo_asked_model else None

    async def _whole(self, plan: Plan, reply: Reply) -> None:
        self.trail.first_byte_unix_ns = self.trail.now()
        seen = bodies.read_metadata(reply.body)
        failed = reply.status >= 400
        self._remember(seen.id)
        error = reply.body[:MAX_ERROR_BYTES].decode(errors="replace") if failed else ""
        said = msgspec.Raw(reply.body) if seen.id else None
        told = Told(seen.model or "", seen.usage, seen.service_tier or "", said)
        await self._record(reply.status, "failed" if failed else "answered", error, told)
        echo = self._echo(plan)
        body = reply.body if echo is None or failed else bodies.replace_model(reply.body, bodies.encode_json(echo))
        await self._start(reply.status, answer_head(plan, reply, self.trail.trace_id, length=len(body)))
        await self.send({"type": "http.response.body", "body": body})

    async def _stream(self, plan: Plan, reply: Reply) -> None:
        assert reply.answer is not None and self.admitted is not None
        stream = self.endpoint.surface.stream(plan.asks_usage is not None, self._echo(plan))
        if not self.started:
            await self._start(reply.status, answer_head(plan, reply, self.trail.trace_id, length=None))
        idle = self.router.settings.timeouts.idle
        chunk, problem = reply.body, ""
        reply.body = b""
        try:
            while chunk:
                passed = stream.feed(chunk)
                self.admitted.set_buffered(
                    stream.buffered_bytes + (3 * len(chunk) if len(chunk) > UNCOUNTED_BYTES else 0)
                )
                if stream.done:  # the client may leave as soon as it reads this
                    await self._record_stream(stream, "failed" if stream.error else "answered", stream.error)
                if passed:
                    await self.send({"type": "http.response.body", "body": passed, "more_body": True})
                chunk = await reply.answer.read(idle)
            if not stream.is_complete:
                problem = "the upstream ended the stream early"
        except (CutError, StallError) as error:
            problem = "" if stream.is_complete else str(error)
        if problem:
            await self._record_stream(stream, "cut", problem)
            last = stream.cut_event(f"The answer was cut off: {problem}.")
            await self.send({"type": "http.response.body", "body": last, "more_body": True})
            return  # without the end of the body: the server breaks the connection, so that nobody takes it for whole
        await self._record_stream(stream, "failed" if stream.error else "answered", stream.error)
        await self.send({"type": "http.response.body", "body": stream.incomplete_event()})

    async def _pass_on(self, reply: Reply) -> None:
        """An answer that is no stream as was asked for, or too large to be read."""
        assert self.plan is not None
        begun = self.started  # a comment went out as the beginning of a stream: what follows can only be an event
        if not begun:
            await self._start(reply.status, answer_head(self.plan, reply, self.trail.trace_id, length=None))
        chunk, ends, failed = reply.body, HeadTailBuffer(), reply.status >= 400
        error = chunk[:MAX_ERROR_BYTES].decode(errors="replace") if failed else ""
        reply.body = b""
        try:
            await self._piece(b"data: " if begun else b"")
            while chunk:
                ends.feed(chunk)
                await self._piece(chunk.replace(b"\n", b" ").replace(b"\r", b" ") if begun else chunk)
                chunk = await reply.answer.read(self.router.settings.timeouts.idle) if reply.answer else b""
        except (CutError, StallError) as cut:
            await self._record(reply.status, "cut", str(cut))
            return
        seen = ends.read_metadata()
        self._remember(seen.id)
        told = Told(seen.model or "", seen.usage, seen.service_tier or "")
        await self._record(reply.status, "failed" if failed else "answered", error, told)
        await self.send({"type": "http.response.body", "body": b"\n\n" if begun else b""})

    async def _piece(self, body: bytes) -> None:
        if body:
            await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def _refuse(self, error: RouterError) -> None:
        if not isinstance(error, BadKeyError):  # strangers write nothing to our disk
            await self._record(error.status, "failed", own_error(error, self.router.settings.record_content))
        if isinstance(error, QuotaError) and not error.again:
            self.router.budgets.refused(self.trail.key_id)
        body = error.body()
        if self.started:
            await self.send({"type": "http.response.body", "body": error_event(body), "more_body": True})
            return
        trace = (b"x-router-trace-id", self.trail.trace_id.encode())
        await self._start(error.status, [*error.response_headers(body), trace])
        await self.send({"type": "http.response.body", "body": body})

    def _remember(self, answer_id: str | None) -> None:
        """Note which upstream stores a response, and the conversation that it belongs to."""
        if not answer_id or self.endpoint.surface.path != b"/responses" or self.reply is None or self.plan is None:
            return
        model, endpoint, fields = self.reply.model, self.reply.endpoint, self.plan.request.fields
        self.router.continuations.remember(answer_id, model, endpoint)
        if "conversation" in fields:
            self.router.continuations.remember(conversation_id(fields), model, endpoint)

    # the record

    async def _record_stream(self, stream: Stream, outcome: str, error: str) -> None:
        if self.recorded:
            return
        self._remember(stream.id)
        if self.verification is not None and outcome == "answered":
            await self.verification.end(stream.content())
        await self._record(200, outcome, error, Told(stream.model, stream.usage, stream.service_tier, stream.content()))

    async def _record(self, status: int, outcome: str, error: str, told: Told = NOTHING_TOLD) -> None:
        if self.recorded:
            return
        self.recorded = True
        router, trail, content = self.router, self.trail, self.router.settings.record_content
        record = trail.record(self.endpoint.name, status, outcome, error)
        record.simulated = router.settings.simulated
        try:
            add_all(record, trail, self.plan, self.reply, self.unbilled_attempts, told, router.prices)
            if self.verification is not None:
                self.verification.add_to(record)
            tidy(record, content)
            if self.plan is not None:
                await add_content(record, content, self.body.skeleton.text, told.response)
        except Exception:  # a fault of ours: what is known by then is recorded, and the answer goes its way
            log.exception("the record of request %s is not complete", trail.trace_id)
        finally:  # also where the client leaves meanwhile
            if self.booking is not None:
                self.booking.settle(record)
            elif trail.key_id in router.limiter.accounts:
                router.limiter.count(record)
            router.journal.append(record)
            router.meter.observe(record)
