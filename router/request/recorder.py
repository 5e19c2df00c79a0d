"""The recorder of a routed request: collects its details, and writes its record once."""

from __future__ import annotations

import logging
from typing import Protocol

from router.client.body import Body
from router.journal.writer import Journal
from router.limits.booking import Booking
from router.limits.limiter import Limiter
from router.metrics import Meter
from router.planning.affinity import conversation_id
from router.planning.plan import ApiFormat, Plan, Stream
from router.policy.prices import PriceBook
from router.request.continuation import Continuations
from router.request.records import EMPTY_SUMMARY, ResponseSummary, add_content, add_details, redact_names
from router.request.timeline import RequestTimeline
from router.request.verification import Verification
from router.settings import Settings
from router.upstream.replies import Reply

log = logging.getLogger("router")
_EMPTY_BODY = Body.from_bytes(b"")


class Collaborators(Protocol):
    """The parts of a worker that recording needs."""

    settings: Settings
    continuations: Continuations
    journal: Journal
    limiter: Limiter
    meter: Meter
    prices: PriceBook


class RequestRecorder:
    """What is known of a routed request so far. Its attributes are set while the request is processed."""

    def __init__(self, worker: Collaborators, surface: ApiFormat, headers: dict[bytes, bytes]) -> None:
        self._worker = worker
        self._surface = surface
        self.timeline = RequestTimeline(headers)
        self.body = _EMPTY_BODY
        self.plan: Plan | None = None
        self.reply: Reply | None = None
        self.unbilled_attempts: list[str] = []  # models of failed attempts that may be billed
        self.booking: Booking | None = None  # of a key with limits
        self.verification: Verification | None = None
        self._is_recorded = False

    async def record_stream(self, stream: Stream, outcome: str, error: str) -> None:
        """Write the record of a streamed answer."""
        if self._is_recorded:
            return
        self.remember_storage(stream.id)
        if self.verification is not None and outcome == "answered":
            await self.verification.check_end(stream.content())
        summary = ResponseSummary(stream.model, stream.usage, stream.service_tier, stream.content())
        await self.record(200, outcome, error, summary)

    async def record(self, status: int, outcome: str, error: str, summary: ResponseSummary = EMPTY_SUMMARY) -> None:
        """Write the record. Further calls have no effect."""
        if self._is_recorded:
            return
        self._is_recorded = True
        worker, timeline, content = self._worker, self.timeline, self._worker.settings.record_content
        record = timeline.record(self._surface.name, status, outcome, error)
        record.simulated = worker.settings.simulated
        try:
            add_details(record, timeline, self.plan, self.reply, self.unbilled_attempts, summary, worker.prices)
            if self.verification is not None:
                self.verification.add_to(record)
            redact_names(record, content)
            if self.plan is not None:
                await add_content(record, content, self.body.skeleton.text, summary.response)
        except Exception:  # a bug here does not cost the client the answer
            log.exception("the record of request %s is incomplete", timeline.trace_id)
        finally:  # also if the client disconnects meanwhile
            if worker.limiter.accounts:
                worker.limiter.settle(record, self.booking)
            worker.journal.append(record)
            worker.meter.observe(record)

    def remember_storage(self, answer_id: str | None) -> None:
        """Remember which upstream stores a response, and the conversation to which it belongs."""
        if not answer_id or self._surface.path != b"/responses" or self.reply is None or self.plan is None:
            return
        model, endpoint, fields = self.reply.model, self.reply.endpoint, self.plan.request.fields
        self._worker.continuations.remember(answer_id, model, endpoint)
        if "conversation" in fields:
            self._worker.continuations.remember(conversation_id(fields), model, endpoint)
