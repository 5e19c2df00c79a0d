"""Models that are about to leave their upstream, by the `shutdown_date` in its list of them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from router.endpoints.listing import fetch
from router.errors import RouterError
from router.lifetime import running
from router.wire.text import UNREADABLE

if TYPE_CHECKING:
    from router.app import Router

log = logging.getLogger("router")
WARN_DAYS = 90
EVERY_SECONDS = 24 * 3600.0


def warnings(listed: object, models: Collection[str], aliases: Mapping[str, str], today: dt.date) -> list[str]:
    """What the list of an upstream says of the end of `models`, in words.

    >>> listed = {"data": [{"id": "gpt-4o", "shutdown_date": "2027-01-14"}]}
    >>> warnings(listed, ["gpt-4o"], {}, dt.date(2026, 12, 15))
    ['gpt-4o leaves its upstream on 2027-01-14, in 30 days: calibrate a successor']
    """
    rows = listed.get("data") if isinstance(listed, dict) else None
    told = []
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict) or not row.get("shutdown_date"):
            continue
        name = str(row.get("id"))
        date = _date(row["shutdown_date"])
        if date is None or aliases.get(name, name) not in models:
            continue
        days = (date - today).days
        if days <= 0:
            told.append(f"{name} left its upstream on {date}: calibrate a successor")
        elif days <= WARN_DAYS:
            told.append(f"{name} leaves its upstream on {date}, in {days} days: calibrate a successor")
    return told


def _date(value: Any) -> dt.date | None:
    """A day, from a date or a moment in text, or from seconds since 1970."""
    try:
        if isinstance(value, int | float):
            return dt.datetime.fromtimestamp(value, dt.UTC).date()
        return dt.date.fromisoformat(str(value)[:10])
    except (ValueError, OverflowError, OSError):
        return None


@contextlib.asynccontextmanager
async def watching(router: Router) -> AsyncIterator[None]:
    """Read the list at once and then daily, for as long as the router serves. Nobody waits for it."""
    if router.settings.simulated or router.settings.forward_client_keys:
        yield  # nobody to ask, or no key to ask with
        return
    async with running(_watch(router)):
        yield


async def _watch(router: Router) -> None:
    while True:
        await look(router, dt.datetime.now(dt.UTC).date())
        await asyncio.sleep(EVERY_SECONDS)


async def look(router: Router, today: dt.date) -> None:
    """Read the upstream's list once, and keep what its owner should know in `router.warnings`."""
    try:
        status, _, body = await fetch(router, [], b"")
        listed = msgspec.json.decode(body)
    except (RouterError, *UNREADABLE) as error:
        log.info("the upstream's list of models could not be read: %s", error)
        return
    if status != 200:
        return  # what was known stays known
    models = {model.name for model in router.serving.policy.rules.models}
    told = warnings(listed, models, router.prices.aliases, today)
    for line in told:
        if line not in router.warnings:
            log.warning("%s", line)
    router.warnings[:] = told
