"""What can go wrong on our side, each knowing its face on the wire. An upstream's own error passes as it came."""

from __future__ import annotations

import msgspec

_NO_GUESSING = (b"x-content-type-options", b"nosniff")  # of what an answer holds


class RouterError(Exception):
    """An error that the client sees in OpenAI's form."""

    status = 500
    type = "server_error"
    code: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()  # beside those of every answer

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def body(self) -> bytes:
        """The error as OpenAI writes it."""
        return envelope(self.message, self.type, self.param, self.code)

    def head(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """The headers of an answer whose whole body is `body`."""
        length = (b"content-length", b"%d" % len(body))
        return [(b"content-type", b"application/json"), length, _NO_GUESSING, *self.headers]


class BadRequestError(RouterError):
    """The request cannot be read, or asks for what is not there."""

    status = 400
    type = "invalid_request_error"


class ForeignPageError(RouterError):
    """A web page asks that is none of ours, or under a name that is none of ours."""

    status = 403
    type = "invalid_request_error"
    code = "foreign_page"


class MethodError(RouterError):
    """No method that is answered here."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.headers = ((b"allow", allow.encode()),)


class BadKeyError(RouterError):
    """No key, or one that is not ours."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class ForbiddenError(RouterError):
    """The key is one of ours, and has no right to this."""

    status = 403
    type = "invalid_request_error"
    code = "insufficient_permissions"


class NotFoundError(RouterError):
    """There is no such thing, or it belongs to another key."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ConflictError(RouterError):
    """It does not go with what is there: a name is taken, or a key has ended."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class ModelNotFoundError(RouterError):
    """A name that can never be a model's, or that the key may not ask for."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class UnpricedModelError(RouterError):
    """The key has a budget, and what a model costs is not known."""

    status = 403
    type = "invalid_request_error"
    code = "model_without_price"


class SlowBodyError(RouterError):
    """The client did not send its body in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class TooLargeError(RouterError):
    """The body is larger than is taken."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UndecodableError(RouterError):
    """The body is compressed, so that it cannot be routed."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_content_encoding"


class QuotaError(RouterError):
    """The budget of the key or of its team does not hold this request. Nothing was sent."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, owner: tuple[str, str], *, again: bool = False) -> None:
        """`owner` (kind and name) has the budget. `again`: requests under way hold the rest, and may give some back."""
        super().__init__(message)
        self.owner = owner
        self.again = again
        self.headers = ((b"x-should-retry", b"false"),)
        if again:
            self.headers = ((b"x-should-retry", b"true"), (b"retry-after", b"1"))


class RateLimitError(RouterError):
    """The key sent as much in a minute as it may. Nothing was sent."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, kind: str, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """`kind` is requests or tokens, which OpenAI gives as the error's type."""
        super().__init__(message)
        self.type = kind
        self.headers = headers


class UnreachableError(RouterError):
    """No answer: refused, reset or cut."""

    status = 502
    type = "upstream_error"
    code = "upstream_unreachable"


class OverloadedError(RouterError):
    """There is more to do than this worker can; the request was not begun, and may be sent again."""

    status = 503
    type = "overloaded_error"
    code = "router_overloaded"
    headers = ((b"retry-after", b"1"), (b"x-should-retry", b"true"))


class LimitsError(RouterError):
    """What a key has spent or may spend is not known here, so that its request is not sent."""

    status = 503
    type = "server_error"
    code = "limits_unknown"


class StateAwayError(LimitsError):
    """Redis, which has the limits that workers share, does not answer."""

    headers = ((b"retry-after", b"1"), (b"x-should-retry", b"true"))


class StoreError(RouterError):
    """What was recorded cannot be read now; requests are answered all the same."""

    status = 503
    type = "server_error"
    code = "store_unreadable"


class UpstreamTimeoutError(RouterError):
    """No answer in time."""

    status = 504
    type = "upstream_error"
    code = "upstream_timeout"


class ClientLeftError(Exception):
    """The client hung up; there is nobody to tell."""


def envelope(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """An error object in OpenAI's form."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
