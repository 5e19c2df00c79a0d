"""What changes of keys and of teams over HTTP share: who may, what is wrong, and what was spent."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import msgspec
from fastapi import Request, Response

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
_OPTION = re.compile(r"--([a-z-]+)")  # as the command names it


class Collaborators(Protocol):
    """What the endpoints of keys and of teams work with."""

    keys: Keys
    settings: Settings
    key_watch: KeyWatch
    standings: Standings


class Limiting(msgspec.Struct, forbid_unknown_fields=True):
    """Limits as JSON has them: numbers, or "none" for no limit."""

    usd_a_day: float | str | None = None
    usd_a_month: float | str | None = None
    requests_a_minute: int | str | None = None
    tokens_a_minute: int | str | None = None
    soft: float | str | None = None
    floor: float | str | None = None

    def given(self) -> dict[str, str | None]:
        """The limits as the command takes them."""
        values = {name: getattr(self, name) for name in Limiting.__struct_fields__}
        return {name: None if value is None else str(value) for name, value in values.items()}


def manager(worker: Collaborators, request: Request) -> str:
    """The id of the key that presents itself, which may change keys.

    Raises:
        ForbiddenError: it may not.
    """
    caller = worker.keys.authenticate(request.scope["headers"])
    if why := refusal(caller, keyed=worker.keys.required):
        raise ForbiddenError(why)
    return caller.key_id


def refusal(caller: Caller, *, keyed: bool) -> str:
    """Why a caller may not change keys, or nothing.

    Whoever may, could give itself all that an admin key can have. So it must have that already; an admin key for
    Prometheus has no path.
    """
    caller.require_admin()
    if not keyed:
        return "Without keys, everybody here may ask. Make the first: `python -m router keys add NAME --admin`."
    if caller.rights < frozenset(RIGHTS) or caller.models or caller.held_to:
        return "Keys are changed by admin keys that have every path, every model and no limits; your key is not one."
    return ""


def done(change: Callable[[], T]) -> T:
    """The result of a change, its errors as the client sees them.

    Raises:
        RouterError: it was not made.
    """
    try:
        return change()
    except issuing.OptionError as error:
        raise BadRequestError(_words(error), error.option) from error
    except issuing.UnknownNameError as error:
        raise NotFoundError("There is nothing of that name.", "name") from error
    except issuing.StateError as error:
        raise ConflictError(_words(error), "name") from error
    except keystore.ReadOnlyError as error:
        log.error("%s", error)
        raise StoreError("The keys cannot be changed here: their file is read-only; the log has its path.") from error
    except SettingsError as error:  # the file is damaged, or keys would be sent to the upstream
        log.error("the keys cannot be changed: %s", error)
        raise StoreError("The keys cannot be read or changed; the router's log says why.") from error
    except OSError as error:
        log.error("the keys cannot be written: %s", error)
        raise StoreError(f"The keys cannot be written: {error.strerror}.") from error


def _words(error: SettingsError) -> str:
    """What is wrong, with options named as in JSON."""
    text = _OPTION.sub(lambda match: match[1].replace("-", "_"), str(error))
    return f"{text[0].upper()}{text[1:]}." if not isinstance(error, issuing.OptionError) else f"{text}."


def known_standings(standings: Standings) -> Mapping[Owner, Standing] | None:
    """The standings, or None where they cannot be read: the keys are shown without them."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return standings.by_owner()
    except (SQLAlchemyError, OSError) as error:
        log.error("what keys have spent cannot be read: %s", type(error).__name__)
        return None


def spending(owner: Owner, spent: Mapping[Owner, Standing] | None) -> dict[str, Any]:
    """What a key or a team spent; null where that is not known."""
    standing = None if spent is None else spent.get(owner, Standing())
    return {
        "spent_usd_today": standing and standing.day_usd,
        "spent_usd_this_month": standing and standing.month_usd,
        "last_used": standing and keystore.format_time(standing.last_used_unix),
    }


async def read_form(request: Request, form: type[Form]) -> Form:
    """The body of a request.

    Raises:
        BadRequestError: it does not fit the form.
    """
    length = request.headers.get("content-length", "").encode() or None
    body = await read_body(request.receive, length, MAX_BYTES, READ_SECONDS)
    try:
        return msgspec.json.decode(body.skeleton.text or b"{}", type=form)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequestError(f"The body does not fit: {error}.") from error


def json_answer(value: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
