"""Shared by the endpoints of keys and teams: authorization, errors, request bodies and spending."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from router.client import issuing, keystore
from router.client.body import read_body
from router.client.keyfile import RIGHTS, Owner
from router.client.keys import Caller, Keys
from router.client.keywatch import KeyWatch
from router.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError, StoreError
from router.limits.standings import Standing, Standings
from router.settings import Settings, SettingsError

log = logging.getLogger("router")
Form = TypeVar("Form")
T = TypeVar("T")
MAX_BYTES = 16 * 1024
READ_SECONDS = 10.0
_OPTION = re.compile(r"--([a-z-]+)")  # an option in a message of the command line


class Collaborators(Protocol):
    """What the endpoints of keys and teams need."""

    keys: Keys
    settings: Settings
    key_watch: KeyWatch
    standings: Standings


class LimitChange(msgspec.Struct, forbid_unknown_fields=True):
    """Limits in a JSON body: numbers, or "none" to remove a limit."""

    usd_a_day: float | str | None = None
    usd_a_month: float | str | None = None
    requests_a_minute: int | str | None = None
    tokens_a_minute: int | str | None = None
    soft: float | str | None = None
    floor: float | str | None = None

    def limits(self) -> dict[str, str | None]:
        """The limits as the values of command line options; None: not given."""
        values = {name: getattr(self, name) for name in LimitChange.__struct_fields__}
        return {name: None if value is None else str(value) for name, value in values.items()}


def manager(worker: Collaborators, request: Request) -> str:
    """The id of the caller's key, which is allowed to change keys.

    Raises:
        ForbiddenError: the caller may not change keys.
    """
    caller = worker.keys.authenticate(request.scope["headers"])
    if why := refusal(caller, keyed=worker.keys.required):
        raise ForbiddenError(why)
    return caller.key_id


def refusal(caller: Caller, *, keyed: bool) -> str:
    """Why a caller may not change keys; empty if it may.

    A caller that changes keys could grant itself every right, so it must already have every right. An admin key without
    paths, such as one for Prometheus, may not change keys.
    """
    caller.require_admin()
    if not keyed:
        return "No keys exist, so every local caller is accepted. Create one: `python -m router keys add NAME --admin`."
    if caller.rights < frozenset(RIGHTS) or caller.models or caller.held_to:
        return "Only admin keys with every path, every model and no limits may change keys; your key is not one."
    return ""


async def apply(worker: Collaborators, by: str, action: str, owner: Owner, change: Callable[[], T]) -> T:
    """Run a change of a key or team, reload the keys of this worker, and log the change with its author's key `by`.

    Raises:
        RouterError: the change failed.
    """
    result = await run_in_threadpool(done, change)
    worker.key_watch.check()
    log.info("%s %s was %s by key %s", owner.kind, owner.name, action, by)
    return result


def done(change: Callable[[], T]) -> T:
    """Run a change and translate its errors to HTTP errors.

    Raises:
        RouterError: the change failed.
    """
    try:
        return change()
    except issuing.OptionError as error:
        raise BadRequestError(_words(error), error.option) from error
    except issuing.UnknownNameError as error:
        raise NotFoundError("No key or team has this name.", "name") from error
    except issuing.StateError as error:
        raise ConflictError(_words(error), "name") from error
    except keystore.ReadOnlyError as error:
        log.error("%s", error)
        raise StoreError(
            "The keys cannot be changed here because their file is read-only. The log has its path."
        ) from error
    except SettingsError as error:  # the file is damaged, or ROUTER_FORWARD_CLIENT_KEYS is set
        log.error("the keys cannot be changed: %s", error)
        raise StoreError("The keys cannot be read or changed; the router's log says why.") from error
    except OSError as error:
        log.error("the keys cannot be written: %s", error)
        raise StoreError(f"The keys cannot be written: {error.strerror}.") from error


def _words(error: SettingsError) -> str:
    """The message of an error, with option names as in JSON."""
    text = _OPTION.sub(lambda match: match[1].replace("-", "_"), str(error))
    return f"{text[0].upper()}{text[1:]}." if not isinstance(error, issuing.OptionError) else f"{text}."


def known_standings(standings: Standings) -> Mapping[Owner, Standing] | None:
    """The standings; None if they cannot be read, so that keys are shown without spending."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return standings.by_owner()
    except (SQLAlchemyError, OSError) as error:
        log.error("cannot read the spending of keys: %s", type(error).__name__)
        return None


def spending(owner: Owner, spent: Mapping[Owner, Standing] | None) -> dict[str, Any]:
    """Spending and last use of a key or team as JSON values; null if unknown."""
    standing = None if spent is None else spent.get(owner, Standing())
    return {
        "spent_usd_today": standing and standing.day_usd,
        "spent_usd_this_month": standing and standing.month_usd,
        "last_used": standing and keystore.format_time(standing.last_used_unix),
    }


async def read_form(request: Request, form: type[Form]) -> Form:
    """Read and decode the JSON body of a request.

    Raises:
        BadRequestError: the body does not match the form.
    """
    length = request.headers.get("content-length", "").encode() or None
    body = await read_body(request.receive, length, MAX_BYTES, READ_SECONDS)
    try:
        return msgspec.json.decode(body.skeleton.text or b"{}", type=form)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequestError(f"The request body is invalid: {error}.") from error
