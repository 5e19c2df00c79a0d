"""The response of a routed request: an upstream's answer, forwarded as a whole or as a stream, or an error."""

from __future__ import annotations

import msgspec

from router.admission import AdmittedRequest
from router.client.body import Send
from router.errors import RouterError
from router.planning.plan import ApiFormat, Plan
from router.request.recorder import RequestRecorder
from router.request.records import MAX_ERROR_BYTES, ResponseSummary
from router.request.response_headers import answer_headers, decision_headers, with_rate_limits
from router.settings import Settings
from router.upstream.calls import CutError, Headers, StallError
from router.upstream.replies import Reply
from router.wire import bodies
from router.wire.head_tail import HeadTailBuffer
from router.wire.sse import KEEP_ALIVE, error_event

UNCOUNTED_BYTES = 64 * 1024  # smaller chunks of a stream are not counted in the memory budget
CHUNK_COPIES = 3  # of a chunk in memory while it is parsed
_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")


class ClientResponse:
    """Sends the response to the client. The record is written before the last byte is sent."""

    def __init__(self, send: Send, recorder: RequestRecorder, surface: ApiFormat, settings: Settings) -> None:
        self._send = send
        self._recorder = recorder
        self._surface = surface
        self._settings = settings
        self.is_started = False

    async def send_reply(self, plan: Plan, reply: Reply, admitted: AdmittedRequest) -> None:
        """Send the answer of an upstream."""
        if reply.answer is not None and reply.status == 200 and plan.streamed:
            await self._send_stream(plan, reply, admitted)
        elif reply.answer is None and not self.is_started:
            await self._send_whole(plan, reply)
        else:
            await self._forward(plan, reply)

    async def send_comment(self, plan: Plan) -> None:
        """Send a comment, so that proxies keep the connection open. Starts an event stream."""
        if not self.is_started:
            headers = decision_headers(plan, None, self._recorder.timeline.trace_id)
            await self._start(200, [_EVENT_STREAM, *headers])
        await self._send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})

    async def send_error(self, error: RouterError) -> None:
        """Send an error, as an event if a stream has started."""
        body = error.body()
        if self.is_started:
            await self._send({"type": "http.response.body", "body": error_event(body), "more_body": True})
            return
        trace = (b"x-router-trace-id", self._recorder.timeline.trace_id.encode())
        await self._start(error.status, [*error.response_headers(body), trace])
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, headers: Headers) -> None:
        recorder = self._recorder
        self.is_started = True
        if recorder.timeline.first_byte_unix_ns is None:
            recorder.timeline.first_byte_unix_ns = recorder.timeline.now()
        if recorder.booking is not None and status < 400:
            headers = with_rate_limits(headers, recorder.booking.rates())
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _send_whole(self, plan: Plan, reply: Reply) -> None:
        recorder = self._recorder
        recorder.timeline.first_byte_unix_ns = recorder.timeline.now()
        metadata = bodies.read_metadata(reply.body)
        failed = reply.status >= 400
        recorder.remember_storage(metadata.id)
        error = reply.body[:MAX_ERROR_BYTES].decode(errors="replace") if failed else ""
        content = msgspec.Raw(reply.body) if metadata.id else None
        summary = ResponseSummary(metadata.model or "", metadata.usage, metadata.service_tier or "", content)
        await recorder.record(reply.status, "failed" if failed else "answered", error, summary)
        body = reply.body
        if self._settings.echo_asked_model and not failed:
            body = bodies.replace_model(body, bodies.encode_json(plan.request.name))
        await self._start(reply.status, answer_headers(plan, reply, recorder.timeline.trace_id, length=len(body)))
        await self._send({"type": "http.response.body", "body": body})

    async def _send_stream(self, plan: Plan, reply: Reply, admitted: AdmittedRequest) -> None:
        assert reply.answer is not None
        recorder = self._recorder
        echo = plan.request.name if self._settings.echo_asked_model else None
        stream = self._surface.stream(plan.usage_edit is not None, echo)
        if not self.is_started:
            await self._start(reply.status, answer_headers(plan, reply, recorder.timeline.trace_id, length=None))
        idle = self._settings.timeouts.idle
        chunk, problem = reply.body, ""
        reply.body = b""
        try:
            while chunk:
                forwarded = stream.feed(chunk)
                chunk_bytes = CHUNK_COPIES * len(chunk) if len(chunk) > UNCOUNTED_BYTES else 0
                admitted.set_buffered(stream.buffered_bytes + chunk_bytes)
                if stream.done:  # the client may disconnect as soon as it reads this
                    await recorder.record_stream(stream, "failed" if stream.error else "answered", stream.error)
                if forwarded:
                    await self._send({"type": "http.response.body", "body": forwarded, "more_body": True})
                chunk = await reply.answer.read(idle)
            if not stream.is_complete:
                problem = "the upstream ended the stream early"
        except (CutError, StallError) as error:
            problem = "" if stream.is_complete else str(error)
        if problem:
            await recorder.record_stream(stream, "cut", problem)
            last = stream.cut_event(f"The answer was interrupted: {problem}.")
            await self._send({"type": "http.response.body", "body": last, "more_body": True})
            return  # the body has no end, so the server breaks the connection and the client notices
        await recorder.record_stream(stream, "failed" if stream.error else "answered", stream.error)
        await self._send({"type": "http.response.body", "body": stream.incomplete_event()})

    async def _forward(self, plan: Plan, reply: Reply) -> None:
        """Forward an answer that is too large to be read, or is not the stream that was requested."""
        recorder = self._recorder
        as_event = self.is_started  # a comment was sent as the start of a stream, so the answer becomes an event
        if not as_event:
            await self._start(reply.status, answer_headers(plan, reply, recorder.timeline.trace_id, length=None))
        chunk, buffer, failed = reply.body, HeadTailBuffer(), reply.status >= 400
        error = chunk[:MAX_ERROR_BYTES].decode(errors="replace") if failed else ""
        reply.body = b""
        try:
            await self._send_piece(b"data: " if as_event else b"")
            while chunk:
                buffer.feed(chunk)
                await self._send_piece(chunk.replace(b"\n", b" ").replace(b"\r", b" ") if as_event else chunk)
                chunk = await reply.answer.read(self._settings.timeouts.idle) if reply.answer else b""
        except (CutError, StallError) as cut:
            await recorder.record(reply.status, "cut", str(cut))
            return
        metadata = buffer.read_metadata()
        recorder.remember_storage(metadata.id)
        summary = ResponseSummary(metadata.model or "", metadata.usage, metadata.service_tier or "")
        await recorder.record(reply.status, "failed" if failed else "answered", error, summary)
        await self._send({"type": "http.response.body", "body": b"\n\n" if as_event else b""})

    async def _send_piece(self, body: bytes) -> None:
        if body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
