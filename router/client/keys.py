"""Authenticate clients by key, and check their rights.

Keys are looked up by hash, so the duration of a lookup reveals nothing about any key. Rights are computed when the keys
are read, so a request costs one lookup.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import SecretStr

from router.client.keyfile import ACCOUNT, RIGHTS, Holding, NamedKey, Roster
from router.client.model_names import is_routing_name, strip_verify
from router.errors import BadKeyError, BadRequestError, ForbiddenError, ModelNotFoundError
from router.policy.naming import without_effort

_KNOWN_DIGESTS = 10_000
_CREDENTIALS = (b"authorization", b"api-key")
_HOW = "Present one of this router's keys as 'Authorization: Bearer KEY'."
_ROUTED = "auto"  # in the models of a key: all routed names


@dataclass(frozen=True, slots=True)
class Caller:
    """The owner of a presented key, and its rights."""

    key_id: str  # the name of the key, or its digest if it has no name; "" without a key
    admin: bool = True
    rights: frozenset[str] = frozenset(RIGHTS)
    models: frozenset[str] = frozenset()  # models that the key may use; empty: all
    until_unix: float = math.inf  # rejected from this moment on
    ends: str = ""  # why it is rejected then, for the error message
    held_to: Holding = ()  # the limits of the key and its team; empty: unlimited
    team: str = ""  # the name of the key's team
    reads_metrics: bool = False  # even if it is not an admin key

    @property
    def own(self) -> str | None:
        """The id of the key whose records the caller may see; None: it may see all."""
        return None if self.admin else self.key_id

    def require(self, right: str) -> None:
        """Check that the key has a right.

        Raises:
            ForbiddenError: the key lacks the right.
        """
        if right not in self.rights:
            raise lacking(right)

    def require_admin(self) -> None:
        """Check that the key is an admin key.

        Raises:
            ForbiddenError: it is not.
        """
        if not self.admin:
            raise ForbiddenError("This endpoint requires an admin key of the router; your key is not an admin key.")

    def require_metrics(self) -> None:
        """Check that the key may read the metrics.

        Raises:
            ForbiddenError: the key is neither an admin key nor ROUTER_METRICS_KEY.
        """
        if not self.reads_metrics:
            self.require_admin()

    def may_ask_for(self, model: str, routed_models: Iterable[str] = ()) -> bool:
        """Whether the key may use a model. Routed names count as `auto`, and `model:effort` as `model`."""
        if not self.models or model in self.models:
            return True
        model = strip_verify(model)
        if is_routing_name(model) or model in routed_models:
            return _ROUTED in self.models
        return without_effort(model) in self.models

    def require_model(self, model: str, routed_models: Iterable[str] = ()) -> None:
        """Check that the key may use a model. The error is the same as OpenAI's.

        Raises:
            ModelNotFoundError: the key may not use the model.
        """
        if not self.may_ask_for(model, routed_models):
            name = model[:100] or "(none)"
            raise ModelNotFoundError(f"The model `{name}` does not exist or you do not have access to it.", "model")


def lacking(right: str) -> ForbiddenError:
    """The error for a key that lacks a right."""
    more = " to the upstream's account beyond single calls (files, batches, fine-tuning, deletes)"
    return ForbiddenError(
        f"You have insufficient permissions for this operation. Missing right: {right}. "
        f"The owner of the router gives a key its rights{more if right == ACCOUNT else ''}."
    )


_METRICS = Caller("metrics", admin=False, rights=frozenset(), reads_metrics=True)


class Keys:
    """The accepted keys. Without any, every caller is accepted, and `serve` listens on loopback only."""

    def __init__(
        self, keys: Iterable[SecretStr], named: Roster | None = None, metrics_key: SecretStr | None = None
    ) -> None:
        """`keys` are the admin keys from the settings."""
        self._admins = tuple(map(_digest, keys))
        self._metrics = None if metrics_key is None else _digest(metrics_key)
        self.names: set[str] = (
            set()
        )  # names of all current and former keys; shared with other modules, and only ever extended
        self.problem = ""  # why the named keys differ from the file; empty if they do not
        self.take(named or Roster())

    def take(self, named: Roster) -> None:
        """Replace the named keys. Requests in flight are not affected."""
        callers: dict[bytes, Caller] = {}
        for key, held_to in named.holdings():
            callers |= _callers(key, held_to)
            self.names.add(key.name)
        callers |= {digest: Caller(digest.hex()[:16]) for digest in self._admins}
        ids = {caller.key_id for caller in callers.values()}
        self.keyed = bool(callers)  # also if all keys are revoked
        self.alone = len(ids) < 2  # all requests have the same key id
        if not callers:
            callers[hashlib.sha256(b"").digest()] = Caller("")
        if self._metrics is not None:  # it has no rights, and does not make keys mandatory
            callers.setdefault(self._metrics, _METRICS)
        self._callers = callers

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Authenticate the caller by the headers of a request.

        Raises:
            BadKeyError: a key is required, and this one is missing, unknown or no longer valid.
            BadRequestError: the request has several credentials, which servers may interpret differently.
        """
        presented = _presented(headers)
        digest = hashlib.sha256(presented).digest()
        caller = self._callers.get(digest)
        if caller is None:
            return self._unknown(presented, digest)
        if caller.ends and caller.until_unix <= time.time():
            raise BadKeyError(f"Incorrect API key provided: this key {caller.ends}. {_HOW}")
        return caller

    def _unknown(self, presented: bytes, digest: bytes) -> Caller:
        if self.keyed:
            problem = "Incorrect API key provided." if presented else "You didn't provide an API key."
            raise BadKeyError(f"{problem} {_HOW}")
        if len(self._callers) >= _KNOWN_DIGESTS:
            self.take(Roster())
        caller = self._callers[digest] = Caller(digest.hex()[:16])  # identified by digest; the key is not stored
        return caller


def _digest(key: SecretStr) -> bytes:
    return hashlib.sha256(key.get_secret_value().encode()).digest()


def _callers(key: NamedKey, held_to: Holding) -> dict[bytes, Caller]:
    """The caller for each hash of a key: the current secret and the replaced ones."""
    rights, models = frozenset(key.paths), frozenset(key.models)
    ends = [(math.inf, "")]
    if key.expires_unix is not None:
        ends.append((key.expires_unix, "has expired"))
    if key.revoked_unix is not None:
        ends = [(key.revoked_unix, "was revoked")]
    by_hash = {key.sha256: min(ends)}
    for earlier in key.earlier:
        by_hash[earlier.sha256] = min(*ends, (earlier.until_unix, "was replaced by another one"))
    return {
        bytes.fromhex(digest): Caller(key.name, key.admin, rights, models, until, how, held_to, key.team)
        for digest, (until, how) in by_hash.items()
    }


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    found = None
    for header in headers:
        if header[0] in _CREDENTIALS:
            if found is not None:
                raise BadRequestError("The request has several credentials; send one, as 'Authorization: Bearer KEY'.")
            found = header
    if found is None:
        return b""
    if found[0] == b"api-key":
        return found[1]
    scheme, _, key = found[1].partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""
