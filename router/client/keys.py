"""Authentication and authorization: the API keys of clients and their rights.

A key is looked up by its hash, so the time of a lookup reveals nothing about any key. Rights are computed when keys are
loaded, so a request costs one lookup.
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

_MAX_KNOWN_DIGESTS = 10_000
_CREDENTIALS = (b"authorization", b"api-key")
_HOW = "Send one of the router's keys as 'Authorization: Bearer KEY'."
_ROUTED = "auto"  # in a list of models: all routed names


@dataclass(frozen=True, slots=True)
class Caller:
    """The API key of a request, and its rights."""

    key_id: str  # the key's name; a digest if it has none; "" without a key
    admin: bool = True
    rights: frozenset[str] = frozenset(RIGHTS)
    models: frozenset[str] = frozenset()  # allowed model names; empty: all
    until_unix: float = math.inf  # the key is rejected from then on
    ends: str = ""  # why it is rejected then
    held_to: Holding = ()  # the limits of the key and of its team; empty: no limits
    team: str = ""  # the name of the key's team
    reads_metrics: bool = False  # even if it is not an admin key

    @property
    def own(self) -> str | None:
        """The id of the key whose records the caller may read; None for an admin, who may read all."""
        return None if self.admin else self.key_id

    def require(self, right: str) -> None:
        """Require a right.

        Raises:
            ForbiddenError: the key does not have the right.
        """
        if right not in self.rights:
            raise missing_right_error(right)

    def require_admin(self) -> None:
        """Require an admin key.

        Raises:
            ForbiddenError: the key is not an admin key.
        """
        if not self.admin:
            raise ForbiddenError("This operation requires an admin key of the router.")

    def require_metrics(self) -> None:
        """Require the right to read the metrics.

        Raises:
            ForbiddenError: the key is neither an admin key nor the metrics key.
        """
        if not self.reads_metrics:
            self.require_admin()

    def may_use(self, model: str, routed_models: Iterable[str] = ()) -> bool:
        """Whether the key may use a model. Routed names count as `auto`, and `model:effort` as `model`."""
        if not self.models or model in self.models:
            return True
        model = strip_verify(model)
        if is_routing_name(model) or model in routed_models:
            return _ROUTED in self.models
        return without_effort(model) in self.models

    def require_model(self, model: str, routed_models: Iterable[str] = ()) -> None:
        """Require the right to use a model.

        Raises:
            ModelNotFoundError: the key may not use the model; the message is OpenAI's.
        """
        if not self.may_use(model, routed_models):
            name = model[:100] or "(none)"
            raise ModelNotFoundError(f"The model `{name}` does not exist or you do not have access to it.", "model")


def missing_right_error(right: str) -> ForbiddenError:
    """The error for a key without a right."""
    details = " to the upstream's account beyond single calls (files, batches, fine-tuning, deletes)"
    return ForbiddenError(
        f"You have insufficient permissions for this operation. Missing right: {right}. "
        f"The owner of the router gives a key its rights{details if right == ACCOUNT else ''}."
    )


_METRICS = Caller("metrics", admin=False, rights=frozenset(), reads_metrics=True)


class Keys:
    """The accepted keys. Without any, every caller is accepted, and `serve` serves only loopback."""

    def __init__(
        self, keys: Iterable[SecretStr], named: Roster | None = None, metrics_key: SecretStr | None = None
    ) -> None:
        """`keys` are the admin keys of the settings, `named` those of the file."""
        self._admins = tuple(map(_digest, keys))
        self._metrics = None if metrics_key is None else _digest(metrics_key)
        self.names: set[str] = set()  # of all named keys so far; it only grows
        self.problem = ""  # why the file could not be loaded; "" if it was
        self.replace_named(named or Roster())

    def replace_named(self, named: Roster) -> None:
        """Replace the named keys. Requests in flight are not affected."""
        callers: dict[bytes, Caller] = {}
        for key, held_to in named.holdings():
            callers |= _callers(key, held_to)
            self.names.add(key.name)
        callers |= {digest: Caller(digest.hex()[:16]) for digest in self._admins}
        ids = {caller.key_id for caller in callers.values()}
        self.required = bool(callers)  # also if all keys are revoked
        self.is_single = len(ids) < 2  # whether there is at most one key
        if not callers:
            callers[hashlib.sha256(b"").digest()] = Caller("")
        if self._metrics is not None:  # it sends no requests, and does not make keys required
            callers.setdefault(self._metrics, _METRICS)
        self._callers = callers

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """The caller of a request.

        Raises:
            BadKeyError: keys are required, and the key is missing, unknown, expired or revoked.
            BadRequestError: there is more than one credential.
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
        if self.required:
            problem = "Incorrect API key provided." if presented else "You didn't provide an API key."
            raise BadKeyError(f"{problem} {_HOW}")
        if len(self._callers) >= _MAX_KNOWN_DIGESTS:
            self.replace_named(Roster())
        caller = self._callers[digest] = Caller(digest.hex()[:16])  # only the digest is kept
        return caller


def _digest(key: SecretStr) -> bytes:
    return hashlib.sha256(key.get_secret_value().encode()).digest()


def _callers(key: NamedKey, held_to: Holding) -> dict[bytes, Caller]:
    """The callers of a named key, by hash: for its current secret and for those before a rotation."""
    rights, models = frozenset(key.paths), frozenset(key.models)
    ends = [(math.inf, "")]
    if key.expires_unix is not None:
        ends.append((key.expires_unix, "has expired"))
    if key.revoked_unix is not None:
        ends = [(key.revoked_unix, "was revoked")]
    ends_by_hash = {key.sha256: min(ends)}
    for earlier in key.earlier:
        ends_by_hash[earlier.sha256] = min(*ends, (earlier.until_unix, "was replaced by a new one"))
    return {
        bytes.fromhex(digest): Caller(key.name, key.admin, rights, models, until, how, held_to, key.team)
        for digest, (until, how) in ends_by_hash.items()
    }


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    credential = None
    for header in headers:
        if header[0] in _CREDENTIALS:
            if credential is not None:
                raise BadRequestError("The request has several credentials. Send one, as 'Authorization: Bearer KEY'.")
            credential = header
    if credential is None:
        return b""
    if credential[0] == b"api-key":
        return credential[1]
    scheme, _, key = credential[1].partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""
