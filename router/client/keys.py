"""Who may ask, and for what: the keys that clients present.

A key is hashed, and its hash is looked up: how long that takes says nothing of any key. What a key may do is worked out
when the keys are read, so that a request costs one look-up.
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
_ROUTED = "auto"  # stands for all names that are routed


@dataclass(frozen=True, slots=True)
class Caller:
    """Who presented a key, and what that key may do."""

    key_id: str  # the key's name; a digest of a key without one; "" for none
    admin: bool = True
    rights: frozenset[str] = frozenset(RIGHTS)
    models: frozenset[str] = frozenset()  # names that it may ask for; empty: all
    until_unix: float = math.inf  # it is refused from that moment on
    ends: str = ""  # how it ends then, in words
    held_to: Holding = ()  # the limits of the key and of its team; empty: it may use as much as it likes
    team: str = ""  # the name of the key's team
    reads_metrics: bool = False  # although it is no admin key

    @property
    def own(self) -> str | None:
        """The id of the only key whose records this caller sees; None: it sees all."""
        return None if self.admin else self.key_id

    def require(self, right: str) -> None:
        """Refuse what the key may not do.

        Raises:
            ForbiddenError: it has not this right.
        """
        if right not in self.rights:
            raise lacking(right)

    def require_admin(self) -> None:
        """Refuse what is for admin keys.

        Raises:
            ForbiddenError: the key is none.
        """
        if not self.admin:
            raise ForbiddenError("This is for admin keys of the router; your key is not one.")

    def require_metrics(self) -> None:
        """Refuse who may not read the metrics.

        Raises:
            ForbiddenError: it is neither an admin key nor the one for the metrics.
        """
        if not self.reads_metrics:
            self.require_admin()

    def may_ask_for(self, model: str, routed_models: Iterable[str] = ()) -> bool:
        """Whether the key may ask for a model. Routed names count as `auto`, and `model:effort` as `model`."""
        if not self.models or model in self.models:
            return True
        model = strip_verify(model)
        if is_routing_name(model) or model in routed_models:
            return _ROUTED in self.models
        return without_effort(model) in self.models

    def require_model(self, model: str, routed_models: Iterable[str] = ()) -> None:
        """Refuse a model that the key may not ask for, as OpenAI does.

        Raises:
            ModelNotFoundError: the key may not ask for it.
        """
        if not self.may_ask_for(model, routed_models):
            name = model[:100] or "(none)"
            raise ModelNotFoundError(f"The model `{name}` does not exist or you do not have access to it.", "model")


def lacking(right: str) -> ForbiddenError:
    """The error for a key that has not a right."""
    more = " to the upstream's account beyond single calls (files, batches, fine-tuning, deletes)"
    return ForbiddenError(
        f"You have insufficient permissions for this operation. Missing right: {right}. "
        f"The owner of the router gives a key its rights{more if right == ACCOUNT else ''}."
    )


_METRICS = Caller("metrics", admin=False, rights=frozenset(), reads_metrics=True)


class Keys:
    """The keys that are accepted; with none, every caller is, and `serve` keeps to loopback."""

    def __init__(
        self, keys: Iterable[SecretStr], named: Roster | None = None, metrics_key: SecretStr | None = None
    ) -> None:
        """`keys` are the admin keys of the settings."""
        self._admins = tuple(map(_digest, keys))
        self._metrics = None if metrics_key is None else _digest(metrics_key)
        self.names: set[str] = set()  # of all named keys there were; it only grows, and others may hold it
        self.problem = ""  # why the named keys are not those of the file, or nothing
        self.take(named or Roster())

    def take(self, named: Roster) -> None:
        """Know these named keys from now on, and no others. Requests that are in flight are not touched."""
        callers: dict[bytes, Caller] = {}
        for key, held_to in named.holdings():
            callers |= _callers(key, held_to)
            self.names.add(key.name)
        callers |= {digest: Caller(digest.hex()[:16]) for digest in self._admins}
        ids = {caller.key_id for caller in callers.values()}
        self.keyed = bool(callers)  # also where all are revoked
        self.alone = len(ids) < 2  # nobody to be told apart from
        if not callers:
            callers[hashlib.sha256(b"").digest()] = Caller("")
        if self._metrics is not None:  # it asks for nothing, and closes nothing
            callers.setdefault(self._metrics, _METRICS)
        self._callers = callers

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Who presents a key.

        Raises:
            BadKeyError: keys are needed, and this is none of them, or one that has ended.
            BadRequestError: there are several, of which others may be read elsewhere.
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
        caller = self._callers[digest] = Caller(digest.hex()[:16])  # by its digest: no key is kept
        return caller


def _digest(key: SecretStr) -> bytes:
    return hashlib.sha256(key.get_secret_value().encode()).digest()


def _callers(key: NamedKey, held_to: Holding) -> dict[bytes, Caller]:
    """By their hashes, who presents a key of this name: the one it has now, and those before it."""
    rights, models = frozenset(key.paths), frozenset(key.models)
    ends = [(math.inf, "")]
    if key.expires_unix is not None:
        ends.append((key.expires_unix, "has expired"))
    if key.revoked_unix is not None:
        ends = [(key.revoked_unix, "was revoked")]
    found = {key.sha256: min(ends)}
    for each in key.earlier:
        found[each.sha256] = min(*ends, (each.until_unix, "was replaced by another one"))
    return {
        bytes.fromhex(digest): Caller(key.name, key.admin, rights, models, until, how, held_to, key.team)
        for digest, (until, how) in found.items()
    }


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    found = None
    for header in headers:
        if header[0] in _CREDENTIALS:
            if found is not None:
                raise BadRequestError("There are several credentials; send one, as 'Authorization: Bearer KEY'.")
            found = header
    if found is None:
        return b""
    if found[0] == b"api-key":
        return found[1]
    scheme, _, key = found[1].partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""
