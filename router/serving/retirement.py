"""Models that are about to leave their upstream: by the `shutdown_date` in its list of them, else by our own table."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from router.adaptation.adapter import Adapter
from router.errors import RouterError
from router.lifetime import running
from router.policy.naming import without_effort
from router.policy.prices import PriceBook
from router.policy.shutdown import listed_days
from router.serving.policy import Serving
from router.settings import OPENAI_BASE_URL, SIMULATED, Settings
from router.upstream.model_list import fetch_models
from router.upstream.upstreams import Upstreams
from router.wire.text import DECODE_ERRORS

log = logging.getLogger("router")
WARN_DAYS = 90
EVERY_SECONDS = 24 * 3600.0


class Collaborators(Protocol):
    """What retirements are read from and told by."""

    settings: Settings
    serving: Serving
    upstreams: Upstreams
    prices: PriceBook
    adapter: Adapter
    warnings: list[str]
    leaving: dict[str, dt.date]


def warnings(days: Mapping[str, dt.date], successors: Sequence[str], today: dt.date) -> list[str]:
    """What the owner should know of models that leave within 90 days, in words; `successors` are the policy's models'.

    >>> warnings({"gpt-4o": dt.date(2027, 1, 14)}, ["gpt-6-luna:none", "gpt-6-sol:none"], dt.date(2026, 12, 15))
    ['gpt-4o leaves its upstream on 2027-01-14, in 30 days: `python -m calibration retire --to gpt-6-luna,gpt-6-sol`']
    """
    to = ",".join(dict.fromkeys(without_effort(name) for name in successors if name)) or "CHEAP,STRONG"
    command = f"`python -m calibration retire --to {to}`"
    told = []
    for name, day in days.items():
        left = (day - today).days
        if left <= 0:
            told.append(f"{name} left its upstream on {day}: {command}")
        elif left <= WARN_DAYS:
            told.append(f"{name} leaves its upstream on {day}, in {left} days: {command}")
    return told


@contextlib.asynccontextmanager
async def watching(worker: Collaborators) -> AsyncIterator[None]:
    """Warn at once by our own table; read the upstream's list then and daily. Nobody waits for it."""
    _tell(worker, {}, dt.datetime.now(dt.UTC).date())
    if worker.settings.simulated or worker.settings.forward_client_keys:
        yield  # nobody to ask, or no key to ask with
        return
    async with running(_watch(worker)):
        yield


async def _watch(worker: Collaborators) -> None:
    while True:
        await look(worker, dt.datetime.now(dt.UTC).date())
        await asyncio.sleep(EVERY_SECONDS)


async def look(worker: Collaborators, today: dt.date) -> None:
    """Read the upstream's list once, and keep what its owner should know in `router.leaving` and `router.warnings`."""
    try:
        status, _, body = await fetch_models(worker.upstreams, worker.settings.timeouts.idle, [], b"")
        listed = msgspec.json.decode(body)
    except (RouterError, *DECODE_ERRORS) as error:
        log.info("the upstream's list of models could not be read: %s", error)
        return
    if status == 200:  # else what was known stays known
        _tell(worker, listed, today)


def _tell(worker: Collaborators, listed: object, today: dt.date) -> None:
    models = worker.serving.policy.rules.models
    names = [model.name for model in models]
    days = {**_known(worker, names), **listed_days(listed, names, worker.prices.aliases)}
    told = warnings(days, [worker.adapter.successor(model, model.name) for model in models], today)
    for line in told:
        if line not in worker.warnings:
            log.warning("%s", line)
    worker.leaving = days
    worker.warnings[:] = told


def _known(worker: Collaborators, names: Sequence[str]) -> dict[str, dt.date]:
    """The days of our own table, for models that OpenAI itself is asked."""
    settings, catalogue = worker.settings, worker.adapter.catalogue
    if settings.base_url not in (OPENAI_BASE_URL, SIMULATED):
        return {}
    own = {name for name, model in settings.models.items() if model.bypasses_default}
    days = {name: catalogue.of(name).leaves for name in names if without_effort(name) not in own and name not in own}
    return {name: day for name, day in days.items() if day is not None}
