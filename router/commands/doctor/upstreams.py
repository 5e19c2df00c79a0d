"""Checks of the upstreams: reachability, API key and clock."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from router.commands.doctor.finding import Finding, State
from router.commands.doctor.proxies import proxied, proxy_remedy
from router.settings import Settings
from router.upstream.calls import Origin
from router.upstream.standalone_call import NoResponseError, ServerResponse, get
from router.upstream.upstreams import Upstreams
from router.wire.text import DECODE_ERRORS

MAX_CLOCK_SKEW_SECONDS = 30.0
_PRINTABLE = re.compile(rb"Bearer [!-~]+")


def upstreams(settings: Settings, known: Upstreams) -> Iterator[Finding]:
    """Check each pair of upstream and key once, then the clock against the first response that has a `Date`."""
    dated_response: ServerResponse | None = None
    checked: set[tuple[Origin | None, bytes | None]] = set()
    endpoints = [("", known.default)]
    endpoints += [(name, endpoint) for name in settings.models for endpoint in known.endpoints(name)]
    for name, endpoint in endpoints:
        if (endpoint.origin, endpoint.authorization) in checked:
            continue
        checked.add((endpoint.origin, endpoint.authorization))
        of = f" of models.{name}" if name else ""
        if endpoint.label:
            of += f" ({endpoint.label})"
        if endpoint.origin is None:
            yield Finding(
                State.WARNING, f"upstream{of}", "answers are simulated", "Set OPENAI_API_KEY to use a real upstream"
            )
            continue
        if endpoint.authorization and not _PRINTABLE.fullmatch(endpoint.authorization):
            message = "contains a space, line break or other character that is invalid in a key, so it was not sent"
            yield Finding(State.PROBLEM, f"key{of}", message, "Set the key without surrounding characters")
            continue
        address = _address(endpoint.origin)
        try:
            response = get(endpoint.origin, b"/models", endpoint.authorization, known.network)
        except NoResponseError as error:
            remedy = f"Check {f'the base_url{of}' if endpoint.has_own_address else 'OPENAI_BASE_URL'} and the network"
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                remedy = "Set ROUTER_CA_BUNDLE (or SSL_CERT_FILE) to a file with the certificates to trust"
            yield Finding(State.PROBLEM, f"upstream{of}", f"{address}: {error}", proxy_remedy(error) or remedy)
            yield Finding(State.SKIPPED, f"key{of}", "not checked because the upstream is unreachable")
            continue
        dated_response = dated_response or (response if response.date is not None else None)
        yield upstream(f"upstream{of}", address + proxied(endpoint.origin, known.network), response)
        forwarded = settings.forward_client_keys and not endpoint.has_own_address
        yield key(f"key{of}", response.status, given=endpoint.authorization is not None, forwarded=forwarded)
    yield clock(dated_response)


def upstream(subject: str, address: str, response: ServerResponse) -> Finding:
    """Judge the upstream by its response to `GET /models`."""
    status = response.status
    if status >= 500:
        return Finding(State.PROBLEM, subject, f"{address} returns {status}", "Check the provider's status page")
    if 300 <= status < 400:
        return Finding(
            State.PROBLEM, subject, f"{address} redirects ({status})", "Set the address that it redirects to"
        )
    if status in (401, 403, 429) or (status == 200 and _is_list(response.body)):
        return Finding(State.OK, subject, f"{address} is reachable")
    return Finding(
        State.WARNING,
        subject,
        f"{address} returns {status} and lists no models",
        "Check that the address is the full base URL of the API, such as https://api.openai.com/v1",
    )


def key(subject: str, status: int, *, given: bool, forwarded: bool) -> Finding:
    """Judge the key by the status of `GET /models`."""
    if status == 200:
        return Finding(State.OK, subject, "accepted" if given else "not set, and the upstream requires none")
    if status in (401, 403) and not given and forwarded:
        return Finding(State.OK, subject, "clients send their own keys (ROUTER_FORWARD_CLIENT_KEYS)")
    if status == 401 or (status == 403 and not given):
        message = "the upstream rejects it" if given else "not set, but the upstream requires one"
        return Finding(
            State.PROBLEM,
            subject,
            f"{message} ({status})",
            "Set OPENAI_API_KEY, or the model's api_key, to a valid key",
        )
    if status == 403:
        return Finding(
            State.WARNING,
            subject,
            "it has no permission to list models (403), so it could not be checked",
            "Send one request to test it",
        )
    if status == 429:
        return Finding(
            State.WARNING, subject, "its rate limit or quota is used up (429)", "Check the account's limits and credit"
        )
    return Finding(State.SKIPPED, subject, f"not checked because the upstream returned {status}")


def clock(response: ServerResponse | None) -> Finding:
    """Compare this machine's clock with the `Date` header of an upstream, which has whole seconds."""
    if response is None or response.date is None:
        return Finding(State.SKIPPED, "clock", "no upstream sent a Date header")
    ahead = response.unix_seconds - response.date
    if abs(ahead) < MAX_CLOCK_SKEW_SECONDS:
        return Finding(State.OK, "clock", "matches the upstream's clock")
    message = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the upstream's clock"
    return Finding(State.WARNING, "clock", message, "Synchronize it with NTP: usage days and trace times depend on it")


def _is_list(body: bytes) -> bool:
    try:
        fields = msgspec.json.decode(body)
    except DECODE_ERRORS:
        return False
    return isinstance(fields, dict) and isinstance(fields.get("data"), list)


def _address(origin: Origin) -> str:
    return f"http{'s' if origin.tls else ''}://{(origin.authority + origin.path).decode()}"
