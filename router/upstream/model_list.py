"""The default upstream's list of models."""

from __future__ import annotations

from router.errors import UnreachableError
from router.upstream.calls import Call, ConnectError, CutError, Headers, StallError, read_whole
from router.upstream.upstreams import Upstreams


async def fetch_models(
    upstreams: Upstreams, idle_seconds: float, client_headers: Headers, query: bytes
) -> tuple[int, Headers, bytes]:
    """Status, headers and body of `GET /models`, requested with the client's headers and query string.

    Raises:
        UnreachableError: the upstream does not respond, or sends nothing for `idle_seconds`.
    """
    headers = upstreams.request_headers(upstreams.default, client_headers, readable=True)
    try:
        call = Call(b"GET", b"/models" + (b"?" + query if query else b""), headers)
        answer = await upstreams.send(upstreams.default, call)
        body = await read_whole(answer, idle_seconds)
    except (ConnectError, CutError, StallError) as error:
        raise UnreachableError(f"The list of models could not be read: {error}.") from error
    return answer.status, answer.headers, body
