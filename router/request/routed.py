"""A routed request: it is read, planned, sent to a model, answered and recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from router.adaptation.adapter import Adapter
from router.admission import Admission, AdmittedRequest, Reserve
from router.client.body import Receive, Scope, Send, read_body
from router.client.disconnect import DisconnectWatch
from router.client.keys import Caller, Keys, missing_right_error
from router.errors import (
    BadKeyError,
    BadRequestError,
    ClientDisconnectedError,
    CompressedBodyError,
    QuotaError,
    RouterError,
)
from router.limits.budgets import Budgets
from router.planning.plan import ApiFormat, Plan, Request, make_plan, read_request
from router.request.client_response import ClientResponse
from router.request.outgoing import OutgoingRequest
from router.request.recorder import Collaborators as Recording
from router.request.recorder import RequestRecorder
from router.request.records import error_text
from router.request.verification import Verification, Verifier
from router.serving.policy import Serving
from router.upstream.attempts import Attempts
from router.upstream.calls import Headers
from router.upstream.endpoints import Endpoint
from router.upstream.replies import Reply
from router.upstream.upstreams import Upstreams
from router.wire.text import repair_text

log = logging.getLogger("router")
MAX_INLINE_BYTES = 256 * 1024  # longer bodies are decoded and planned in a thread


class Collaborators(Recording, Protocol):
    """The parts of a worker that a routed request needs."""

    serving: Serving
    upstreams: Upstreams
    attempts: Attempts
    adapter: Adapter
    admission: Admission
    keys: Keys
    budgets: Budgets
    verifier: Verifier


class RoutedEndpoint:
    """The ASGI function of one routed endpoint."""

    def __init__(self, surface: ApiFormat, worker: Collaborators) -> None:
        self.surface = surface
        self.worker = worker
        self.right = surface.name.partition("/")[0]  # that a key needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await RoutedRequest(self, scope, receive, send).run()


class RoutedRequest:
    """One request to a routed endpoint."""

    def __init__(self, endpoint: RoutedEndpoint, scope: Scope, receive: Receive, send: Send) -> None:
        self._endpoint = endpoint
        self._worker = worker = endpoint.worker
        self._surface = surface = endpoint.surface
        self._receive = receive
        self._query: bytes = scope["query_string"]
        self._is_disconnected: Callable[[], bool] | None = scope.get("router.is_disconnected")
        self._is_data_waiting: Callable[[], bool] | None = scope.get("router.is_data_waiting")
        self._headers: Headers = scope["headers"]
        self._header_values = dict(self._headers)
        self._recorder = RequestRecorder(worker, surface, self._header_values)
        self._response = ClientResponse(send, self._recorder, surface, worker.settings)
        self._admitted: AdmittedRequest | None = None
        self._pinned_endpoint: Endpoint | None = None  # the upstream that stores what the request continues

    async def run(self) -> None:
        """Process the request, and record how it ended."""
        watch, recorder = DisconnectWatch(self._receive), self._recorder
        try:
            await self._process(watch)
        except RouterError as error:
            await self._send_error(error)
        except (asyncio.CancelledError, ClientDisconnectedError):
            await recorder.record(499, "abandoned", "the client disconnected")
            watch.uncancel()
        except Exception:
            log.exception("request %s failed", recorder.timeline.trace_id)
            await self._send_error(RouterError("Internal error of the router."))
        finally:
            watch.stop()
            if recorder.reply is not None and recorder.reply.answer is not None:
                recorder.reply.answer.close()
            if self._admitted is not None:
                self._admitted.release()

    async def _process(self, watch: DisconnectWatch) -> None:
        worker, recorder = self._worker, self._recorder
        timeline = recorder.timeline
        caller = worker.keys.authenticate(self._headers)
        timeline.set_key(caller.key_id, caller.team, alone=worker.keys.is_single)
        if self._endpoint.right not in caller.rights:
            raise missing_right_error(self._endpoint.right)
        self._admitted = admitted = worker.admission.admit()
        await self._read_body(admitted.reserve)
        watch.start()
        await worker.admission.wait_turn()
        timeline.read_unix_ns = timeline.now()
        recorder.plan = plan = await self._make_plan(caller)
        if caller.held_to:
            arguments = caller, plan, self._surface, recorder.body.skeleton, timeline.read_unix_ns
            recorder.booking = await worker.limiter.hold(*arguments)
        timeline.sent_unix_ns = timeline.now()
        reply = await self._send_plan(plan)
        timeline.answered_unix_ns = timeline.now()
        await self._response.send_reply(plan, reply, admitted)

    async def _read_body(self, reserve: Reserve) -> None:
        settings = self._worker.settings
        if self._header_values.get(b"content-encoding", b"identity") != b"identity":
            raise CompressedBodyError("The request body is compressed. Send it uncompressed.")
        declared, seconds = self._header_values.get(b"content-length"), settings.timeouts.request_body
        limit = settings.max_body_bytes
        body = await read_body(self._receive, declared, limit, seconds, reserve, self._is_data_waiting)
        self._recorder.body = body

    async def _make_plan(self, caller: Caller) -> Plan:
        worker, values = self._worker, self._header_values
        is_large = len(self._recorder.body.skeleton.text) > MAX_INLINE_BYTES
        request = await asyncio.to_thread(self._read_request) if is_large else self._read_request()
        if caller.models:
            forced = values.get(b"x-router-model", b"").decode("latin-1")
            caller.require_model(forced or request.name, worker.settings.routed_models)
        continued = None
        if "previous_response_id" in request.fields:
            stored = await worker.continuations.previous_response(request, self._headers)
            if stored is not None:
                continued, self._pinned_endpoint = stored
        elif "conversation" in request.fields:
            self._pinned_endpoint = worker.continuations.conversation_endpoint(request)
        surface, routed_models = self._surface, worker.settings.routed_models
        floor = None
        if caller.held_to:
            floor = worker.limiter.floor(caller, self._recorder.timeline.read_unix_ns)
        arguments = surface, worker.serving, worker.adapter, routed_models, request, values, continued, floor
        return await asyncio.to_thread(make_plan, *arguments) if is_large else make_plan(*arguments)

    def _read_request(self) -> Request:
        """Parse the body. If it contains unpaired surrogates, parse the repaired text."""
        recorder, skeleton = self._recorder, self._recorder.body.skeleton
        try:
            return read_request(skeleton.text, self._surface)
        except BadRequestError:
            text = repair_text(skeleton.text)
            if text == skeleton.text:
                raise
        recorder.body = replace(recorder.body, skeleton=replace(skeleton, text=text))
        return read_request(text, self._surface)

    async def _send_plan(self, plan: Plan) -> Reply:
        """Send the request to the models of the plan. A stream gets comments until the reply arrives."""
        send = self._send_verified if plan.verify else self._send_to_models
        seconds = self._worker.settings.keep_alive_seconds
        if not seconds or not plan.streamed:
            return await send(plan)
        task = asyncio.ensure_future(send(plan))
        try:
            while not (await asyncio.wait([task], timeout=seconds))[0]:
                await self._response.send_comment(plan)
        finally:
            task.cancel()
        return task.result()

    async def _send_to_models(self, plan: Plan) -> Reply:
        assert self._admitted is not None
        worker, surface, recorder, query = self._worker, self._surface, self._recorder, self._query
        outgoing = OutgoingRequest(
            plan,
            surface.name,
            surface.path + (b"?" + query if query else b""),
            self._headers,
            recorder.body.pieces,
            recorder.body.skeleton,
            worker.upstreams,
            worker.adapter,
            worker.serving.policy.rules.models,
            worker.settings.fallbacks,
            self._is_disconnected,
            self._pinned_endpoint,
        )
        reply = await worker.attempts.send(outgoing, recorder.unbilled_attempts, self._admitted.reserve)
        recorder.reply = reply  # at once, because the client may disconnect before the caller gets it
        reply.adapted = outgoing.describe_changes(reply.model)
        return reply

    async def _send_verified(self, plan: Plan) -> Reply:
        assert self._admitted is not None
        recorder, verifier = self._recorder, self._worker.verifier
        arguments = plan, self._surface, self._send_to_models, self._admitted.reserve
        recorder.verification = Verification(verifier, *arguments, recorder.timeline.started_unix_ns)
        recorder.reply = reply = await recorder.verification.verified_reply(await self._send_to_models(plan))
        return reply

    async def _send_error(self, error: RouterError) -> None:
        worker, recorder = self._worker, self._recorder
        if not isinstance(error, BadKeyError):  # unauthenticated requests write nothing to the disk
            await recorder.record(error.status, "failed", error_text(error, worker.settings.record_content))
        if isinstance(error, QuotaError) and not error.again:
            worker.budgets.refused(error.owner)
        await self._response.send_error(error)
