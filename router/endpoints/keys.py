"""The named keys, for admin keys: `/router/keys`. The command `python -m router keys` shares its code."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from router.client import issuing, keystore
from router.client.body import read_body
from router.client.keyfile import FILE, RIGHTS, NamedKey, read_keys
from router.client.keys import Caller, Keys
from router.client.keywatch import KeyWatch
from router.errors import BadRequestError, ConflictError, ForbiddenError, NotFoundError, StoreError
from router.journal.writer import Journal
from router.limits.standings import Standing, Standings
from router.settings import Settings, SettingsError

log = logging.getLogger("router")
Form = TypeVar("Form")
MAX_BYTES = 16 * 1024
READ_SECONDS = 10.0
_OPTION = re.compile(r"--([a-z-]+)")  # as the command names it


class Collaborators(Protocol):
    """What the endpoints work with."""

    keys: Keys
    settings: Settings
    journal: Journal
    key_watch: KeyWatch


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


class Adding(Limiting, forbid_unknown_fields=True, kw_only=True):
    """A key to make."""

    name: str
    models: tuple[str, ...] = ()
    paths: tuple[str, ...] | None = None
    expires: str = ""
    admin: bool = False


class Rotating(msgspec.Struct, forbid_unknown_fields=True):
    """How a key is to be replaced."""

    grace: str = "0"


def add_routes(app: FastAPI, worker: Collaborators) -> None:
    """Add the endpoints."""
    standings = Standings(worker.settings.usage_url, worker.journal.directory)

    def manager(request: Request) -> str:
        """The id of the key that presents itself, which may change keys."""
        caller = worker.keys.check(request.scope["headers"])
        if refusal := _refusal(caller, keyed=worker.keys.keyed):
            raise ForbiddenError(refusal)
        return caller.key_id

    async def changed(by: str, told: str, change: Callable[[], Any]) -> Any:
        """Make a change, have this worker know it at once, and log who made it."""
        made = await run_in_threadpool(_done, change)
        worker.key_watch.check()
        log.info("key %s is %s by key %s", made[0].name, told, by)
        return made

    @app.get("/router/keys")
    async def show_all(request: Request) -> Response:
        """All keys with their rights, limits and ends, what each spent, and when it was last used."""
        caller = worker.keys.check(request.scope["headers"])
        caller.require_admin()
        keys = await run_in_threadpool(_done, lambda: read_keys(worker.settings.home / FILE))
        spent = await run_in_threadpool(_standings, standings)
        now = time.time()
        refusal = _refusal(caller, keyed=worker.keys.keyed)
        return _json({"keys": [_told(key, now, spent) for key in keys], "may_change": not refusal, "why": refusal})

    @app.post("/router/keys")
    async def add(request: Request) -> Response:
        """Make a key. Its secret is in this answer, and nowhere else."""
        by = manager(request)
        given = await _read(request, Adding)
        change = partial(
            keystore.add_key,
            worker.settings,
            given.name,
            models=given.models,
            paths=given.paths,
            expires=given.expires,
            admin=given.admin,
            limits=given.given(),
        )
        key, secret = await changed(by, "made", change)
        return _json({**keystore.as_mapping(key, time.time()), "key": secret}, 201)

    @app.get("/router/keys/{name}")
    async def show(name: str, request: Request) -> Response:
        """One key."""
        worker.keys.check(request.scope["headers"]).require_admin()
        key = await run_in_threadpool(_done, lambda: issuing.named(read_keys(worker.settings.home / FILE), name))
        return _json(_told(key, time.time(), await run_in_threadpool(_standings, standings)))

    @app.patch("/router/keys/{name}")
    async def limit(name: str, request: Request) -> Response:
        """Change the limits of a key; "none" removes one."""
        by = manager(request)
        limits = (await _read(request, Limiting)).given()
        change = partial(_alone, keystore.limit_key, worker.settings, name, limits)
        return _json(keystore.as_mapping((await changed(by, "limited", change))[0], time.time()))

    @app.delete("/router/keys/{name}")
    async def revoke(name: str, request: Request) -> Response:
        """End a key for good. Requests in flight are answered."""
        by = manager(request)
        change = partial(_alone, keystore.revoke_key, worker.settings, name)
        return _json(keystore.as_mapping((await changed(by, "revoked", change))[0], time.time()))

    @app.post("/router/keys/{name}/rotate")
    async def rotate(name: str, request: Request) -> Response:
        """Make another secret for a key; the one before is accepted for `grace` more."""
        by = manager(request)
        given = await _read(request, Rotating)
        change = partial(keystore.rotate_key, worker.settings, name, given.grace)
        key, secret, _ = await changed(by, "rotated", change)
        return _json({**keystore.as_mapping(key, time.time()), "key": secret})


def _refusal(caller: Caller, *, keyed: bool) -> str:
    """Why a caller may not change keys, or nothing.

    Whoever may, could give itself all that an admin key can have. So it must have that already; an admin key for
    Prometheus has no path.
    """
    caller.require_admin()
    if not keyed:
        return "Without keys, everybody here may ask. Make the first: `python -m router keys add NAME --admin`."
    if caller.rights < frozenset(RIGHTS) or caller.models or caller.limits is not None:
        return "Keys are changed by admin keys that have every path, every model and no limits; your key is not one."
    return ""


def _alone(change: Callable[..., NamedKey], *given: Any) -> tuple[NamedKey]:
    return (change(*given),)


def _done(change: Callable[[], Any]) -> Any:
    """The result of a change, its errors as the client sees them."""
    try:
        return change()
    except issuing.OptionError as error:
        raise BadRequestError(_words(error), error.option) from error
    except issuing.UnknownKeyError as error:
        raise NotFoundError("There is no key of that name.", "name") from error
    except issuing.KeyStateError as error:
        raise ConflictError(_words(error), "name") from error
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


def _standings(standings: Standings) -> Mapping[str, Standing] | None:
    """The standings, or None where they cannot be read: the keys are shown without them."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return standings.by_key()
    except (SQLAlchemyError, OSError) as error:
        log.error("what keys have spent cannot be read: %s", type(error).__name__)
        return None


def _told(key: NamedKey, now_unix: float, spent: Mapping[str, Standing] | None) -> dict[str, Any]:
    """A key for readers, with what it spent; null where that is not known."""
    standing = None if spent is None else spent.get(key.name, Standing())
    return {
        **keystore.as_mapping(key, now_unix),
        "spent_usd_today": standing and standing.day_usd,
        "spent_usd_this_month": standing and standing.month_usd,
        "last_used": standing and keystore.moment(standing.last_used_unix),
    }


async def _read(request: Request, form: type[Form]) -> Form:
    length = request.headers.get("content-length", "").encode() or None
    body = await read_body(request.receive, length, MAX_BYTES, READ_SECONDS)
    try:
        return msgspec.json.decode(body.skeleton.text or b"{}", type=form)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequestError(f"The body does not fit: {error}.") from error


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
