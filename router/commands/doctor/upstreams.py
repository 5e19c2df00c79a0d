"""The upstreams: whether they answer, whether they take the key, and what time they have."""

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

MOST_CLOCK_SECONDS = 30.0
_PRINTABLE = re.compile(rb"Bearer [!-~]+")


def upstreams(settings: Settings, known: Upstreams) -> Iterator[Finding]:
    """Reachability and key of every upstream, each key once; then the clock, by the first upstream that tells one."""
    date_heard: ServerResponse | None = None
    asked: set[tuple[Origin | None, bytes | None]] = set()
    endpoints = [("", known.default)]
    endpoints += [(name, endpoint) for name in settings.models for endpoint in known.endpoints(name)]
    for name, endpoint in endpoints:
        if (endpoint.origin, endpoint.authorization) in asked:
            continue
        asked.add((endpoint.origin, endpoint.authorization))
        of = f" of models.{name}" if name else ""
        if endpoint.label:
            of += f" ({endpoint.label})"
        if endpoint.origin is None:
            yield Finding(State.WARNING, f"upstream{of}", "answers are simulated", "Set OPENAI_API_KEY for real ones")
            continue
        if endpoint.authorization and not _PRINTABLE.fullmatch(endpoint.authorization):
            told = "it has a space, a line break or another character that no key has, so it was not sent"
            yield Finding(State.PROBLEM, f"key{of}", told, "Set it again, without what surrounds it")
            continue
        address = _address(endpoint.origin)
        try:
            heard = get(endpoint.origin, b"/models", endpoint.authorization, known.network)
        except NoResponseError as error:
            remedy = f"Check {f'the base_url{of}' if endpoint.has_own_address else 'OPENAI_BASE_URL'} and the network"
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                remedy = "Set ROUTER_CA_BUNDLE (or SSL_CERT_FILE) to a file with the certificates to trust"
            told = f"{address} gives {error}"
            yield Finding(State.PROBLEM, f"upstream{of}", told, proxy_remedy(error) or remedy)
            yield Finding(State.SKIPPED, f"key{of}", "not checked, since the upstream does not answer")
            continue
        date_heard = date_heard or (heard if heard.date is not None else None)
        yield upstream(f"upstream{of}", address + proxied(endpoint.origin, known.network), heard)
        forwarded = settings.forward_client_keys and not endpoint.has_own_address
        yield key(f"key{of}", heard.status, given=endpoint.authorization is not None, forwarded=forwarded)
    yield clock(date_heard)


def upstream(subject: str, address: str, heard: ServerResponse) -> Finding:
    """What the answer to `GET /models` says of the upstream."""
    if heard.status >= 500:
        return Finding(State.PROBLEM, subject, f"{address} answers {heard.status}", "Look at its status page")
    if 300 <= heard.status < 400:
        return Finding(
            State.PROBLEM, subject, f"{address} redirects ({heard.status})", "Set the address that it redirects to"
        )
    if heard.status in (401, 403, 429) or (heard.status == 200 and _is_list(heard.body)):
        return Finding(State.OK, subject, f"{address} answers")
    return Finding(
        State.WARNING,
        subject,
        f"{address} answers {heard.status} and lists no models",
        "Check that the address is the whole base of the API, such as https://api.openai.com/v1",
    )


def key(subject: str, status: int, *, given: bool, forwarded: bool) -> Finding:
    """What the status of `GET /models` says of the key."""
    if status == 200:
        return Finding(State.OK, subject, "accepted" if given else "none is set, and the upstream asks for none")
    if status in (401, 403) and not given and forwarded:
        return Finding(State.OK, subject, "clients send their own (ROUTER_FORWARD_CLIENT_KEYS)")
    if status == 401 or (status == 403 and not given):
        told = "the upstream refuses it" if given else "none is set, and the upstream asks for one"
        return Finding(
            State.PROBLEM, subject, f"{told} ({status})", "Set OPENAI_API_KEY, or the model's api_key, to a valid key"
        )
    if status == 403:
        return Finding(
            State.WARNING, subject, "it may not list models (403), so it could not be checked", "Ask one question"
        )
    if status == 429:
        return Finding(State.WARNING, subject, "its rate or quota is used up (429)", "Look at its limits and credit")
    return Finding(State.SKIPPED, subject, f"an answer of {status} does not tell")


def clock(heard: ServerResponse | None) -> Finding:
    """This machine's clock against the `Date` of an upstream, which has whole seconds."""
    if heard is None or heard.date is None:
        return Finding(State.SKIPPED, "clock", "no upstream told the time")
    ahead = heard.unix_seconds - heard.date
    if abs(ahead) < MOST_CLOCK_SECONDS:
        return Finding(State.OK, "clock", "agrees with the upstream's")
    told = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the upstream's"
    return Finding(State.WARNING, "clock", told, "Set it by NTP: days of the bill and traces go by it")


def _is_list(body: bytes) -> bool:
    try:
        fields = msgspec.json.decode(body)
    except DECODE_ERRORS:
        return False
    return isinstance(fields, dict) and isinstance(fields.get("data"), list)


def _address(origin: Origin) -> str:
    return f"http{'s' if origin.tls else ''}://{(origin.authority + origin.path).decode()}"
