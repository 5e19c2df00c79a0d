"""The router's own errors, in OpenAI's format. Errors of an upstream are returned to the client unchanged."""

from __future__ import annotations

import msgspec

Headers = tuple[tuple[bytes, bytes], ...]

INVALID = "invalid_request_error"  # the error type for requests that the client has to change
_NO_SNIFF = (b"x-content-type-options", b"nosniff")
_RETRY: Headers = ((b"retry-after", b"1"), (b"x-should-retry", b"true"))
_DO_NOT_RETRY: Headers = ((b"x-should-retry", b"false"),)


class RouterError(Exception):
    """An error that is returned to the client.

    Each subclass is one row of a table: the HTTP status, and the `type`, `code` and extra headers of the response.
    """

    status = 500
    type = "server_error"
    code: str | None = None
    headers: Headers = ()  # in addition to those of every response

    def __init_subclass__(
        cls, *, status: int | None = None, kind: str | None = None, code: str | None = None, headers: Headers = ()
    ) -> None:
        """`kind` is OpenAI's error type. A value that is not given is inherited."""
        super().__init_subclass__()
        cls.status = status or cls.status
        cls.type = kind or cls.type
        cls.code = code or cls.code
        cls.headers = headers or cls.headers

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code

    def body(self) -> bytes:
        """The response body: an error object in OpenAI's format."""
        return error_body(self.message, self.type, self.param, self.code)

    def response_headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """The headers of a response that consists of `body`."""
        length = (b"content-length", b"%d" % len(body))
        return [(b"content-type", b"application/json"), length, _NO_SNIFF, *self.headers]


class BadRequestError(RouterError, status=400, kind=INVALID):
    """The request is malformed or names something that does not exist."""


class BadKeyError(RouterError, status=401, kind=INVALID, code="invalid_api_key"):
    """The request has no API key, or one that the router does not know."""


class ForbiddenError(RouterError, status=403, kind=INVALID, code="insufficient_permissions"):
    """The API key is valid and lacks the right for this request."""


class ForbiddenOriginError(RouterError, status=403, kind=INVALID, code="foreign_page"):
    """A browser sends the request for a web page of another site, or under an unknown host name."""


class UnpricedModelError(RouterError, status=403, kind=INVALID, code="model_without_price"):
    """The key has a budget and the price of the model is unknown."""


class NotFoundError(RouterError, status=404, kind=INVALID, code="not_found"):
    """The resource does not exist or belongs to another key."""


class ModelNotFoundError(RouterError, status=404, kind=INVALID, code="model_not_found"):
    """The model name is too long, or the key may not use the model."""


class MethodNotAllowedError(RouterError, status=405, kind=INVALID, code="method_not_allowed"):
    """The router does not serve this HTTP method."""

    def __init__(self, message: str, allow: str) -> None:
        super().__init__(message)
        self.headers = ((b"allow", allow.encode()),)


class SlowBodyError(RouterError, status=408, kind=INVALID, code="request_timeout"):
    """The client did not send the request body in time."""


class ConflictError(RouterError, status=409, kind=INVALID, code="conflict"):
    """The name is already in use, or the key is revoked or expired."""


class TooLargeError(RouterError, status=413, kind=INVALID, code="request_too_large"):
    """The request body exceeds the size limit."""


class CompressedBodyError(RouterError, status=415, kind=INVALID, code="unsupported_content_encoding"):
    """The request body is compressed, so the router cannot read it."""


class QuotaError(RouterError, status=429, kind="insufficient_quota", code="insufficient_quota"):
    """The budget of the key or of its team does not cover this request. Nothing was sent upstream."""

    def __init__(self, message: str, owner: tuple[str, str], *, again: bool = False) -> None:
        """`owner` has the budget: its kind (key or team) and name.

        `again`: a retry can succeed, because requests in flight reserve budget that they may release.
        """
        super().__init__(message)
        self.owner = owner
        self.again = again
        self.headers = _RETRY if again else _DO_NOT_RETRY


class RateLimitError(RouterError, status=429, code="rate_limit_exceeded"):
    """The key reached its limit of requests or tokens per minute. Nothing was sent upstream."""

    def __init__(self, message: str, kind: str, headers: Headers) -> None:
        """`kind` is "requests" or "tokens", which OpenAI returns as the error type."""
        super().__init__(message)
        self.type = kind
        self.headers = headers


class UnreachableError(RouterError, status=502, kind="upstream_error", code="upstream_unreachable"):
    """The upstream refused, reset or closed the connection."""


class OverloadedError(RouterError, status=503, kind="overloaded_error", code="router_overloaded", headers=_RETRY):
    """The worker has no capacity for the request. It was not started, so the client can safely retry it."""


class LimitsError(RouterError, status=503, code="limits_unknown"):
    """The router cannot read what the key has spent, so it does not send the request."""


class StateAwayError(LimitsError, headers=_RETRY):
    """Redis, which stores the limits that workers share, does not respond."""


class StoreError(RouterError, status=503, code="store_unreadable"):
    """Recorded data cannot be read. Routing continues."""


class UpstreamTimeoutError(RouterError, status=504, kind="upstream_error", code="upstream_timeout"):
    """The upstream did not respond in time."""


class ClientDisconnectedError(Exception):
    """The client closed the connection, so no response can be sent."""


def error_body(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """An error object in OpenAI's format."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
