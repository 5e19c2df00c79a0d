"""Warns of models that shut down soon: by `shutdown_date` in the upstream's list of models, else by our own table."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from router.adaptation.adapter import Adapter
from router.errors import RouterError
from router.lifetime import repeating
from router.policy.naming import without_effort
from router.policy.prices import PriceBook
from router.policy.shutdown import read_shutdown_days
from router.serving.policy import Serving
from router.settings import OPENAI_BASE_URL, SIMULATED, Settings
from router.upstream.model_list import fetch_models
from router.upstream.upstreams import Upstreams
from router.wire.text import DECODE_ERRORS

log = logging.getLogger("router")
WARN_DAYS = 90
CHECK_EVERY_SECONDS = 24 * 3600.0


class Collaborators(Protocol):
    """What shutdown dates are read from, and where they are recorded."""

    settings: Settings
    serving: Serving
    upstreams: Upstreams
    prices: PriceBook
    adapter: Adapter
    warnings: list[str]
    shutdown_dates: dict[str, dt.date]


def warnings(dates: Mapping[str, dt.date], successors: Sequence[str], today: dt.date) -> list[str]:
    """Warnings about models that shut down within 90 days; `successors` are those of the policy's models.

    >>> warnings({"gpt-4o": dt.date(2027, 1, 14)}, ["gpt-6-luna:none", "gpt-6-sol:none"], dt.date(2026, 12, 15))
    ['gpt-4o shuts down on 2027-01-14, in 30 days; run `python -m calibration retire --to gpt-6-luna,gpt-6-sol`']
    """
    to = ",".join(dict.fromkeys(without_effort(name) for name in successors if name)) or "CHEAP,STRONG"
    command = f"`python -m calibration retire --to {to}`"
    messages = []
    for name, date in dates.items():
        days = (date - today).days
        if days <= 0:
            messages.append(f"{name} shut down on {date}; run {command}")
        elif days <= WARN_DAYS:
            messages.append(f"{name} shuts down on {date}, in {days} days; run {command}")
    return messages


@contextlib.asynccontextmanager
async def watching_shutdowns(worker: Collaborators) -> AsyncIterator[None]:
    """Warn by our own table at once. Read the upstream's list in the background, now and daily."""
    _record(worker, {}, _today())
    if worker.settings.simulated or worker.settings.forward_client_keys:
        yield  # there is no upstream, or no key for it
        return

    async def check() -> None:
        await check_model_list(worker, _today())

    async with repeating(check, CHECK_EVERY_SECONDS):
        yield


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


async def check_model_list(worker: Collaborators, today: dt.date) -> None:
    """Read the upstream's list of models once, and record shutdown dates and warnings in the worker."""
    try:
        status, _, body = await fetch_models(worker.upstreams, worker.settings.timeouts.idle, [], b"")
        listed = msgspec.json.decode(body)
    except (RouterError, *DECODE_ERRORS) as error:
        log.info("the upstream's list of models cannot be read: %s", error)
        return
    if status == 200:  # otherwise the known dates remain
        _record(worker, listed, today)


def _record(worker: Collaborators, listed: object, today: dt.date) -> None:
    models = worker.serving.policy.rules.models
    names = [model.name for model in models]
    dates = {**_listed_in_table(worker, names), **read_shutdown_days(listed, names, worker.prices.aliases)}
    messages = warnings(dates, [worker.adapter.successor(model, model.name) for model in models], today)
    for message in messages:
        if message not in worker.warnings:
            log.warning("%s", message)
    worker.shutdown_dates = dates
    worker.warnings[:] = messages


def _listed_in_table(worker: Collaborators, names: Sequence[str]) -> dict[str, dt.date]:
    """The shutdown dates in our own table, for models that OpenAI itself serves."""
    settings, catalogue = worker.settings, worker.adapter.catalogue
    if settings.base_url not in (OPENAI_BASE_URL, SIMULATED):
        return {}
    elsewhere = {name for name, model in settings.models.items() if model.bypasses_default}
    own = [name for name in names if name not in elsewhere and without_effort(name) not in elsewhere]
    dates = {name: catalogue.facts(name).shutdown_date for name in own}
    return {name: date for name, date in dates.items() if date is not None}
