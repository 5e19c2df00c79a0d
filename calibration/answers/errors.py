"""The errors of an upstream: what they say, and whether to ask again."""

from __future__ import annotations

from collections.abc import Mapping

import openai


def status_of(error: openai.APIError) -> int | None:
    """The HTTP status of an error; None without an answer."""
    return error.status_code if isinstance(error, openai.APIStatusError) else None


def refuses_access(error: openai.APIError) -> bool:
    """Whether the upstream refuses the key, the model or the account, so that it would refuse every request."""
    return status_of(error) in (401, 403, 404, 407) or error.code == "insufficient_quota"


def is_retryable(error: openai.APIError) -> bool:
    """Whether the same request may succeed later."""
    status = status_of(error)
    return status is None or status in (408, 409, 429) or status >= 500


def retry_after(error: openai.APIError) -> float | None:
    """The number of seconds that the upstream asks to wait; None where it does not."""
    headers = error.response.headers if isinstance(error, openai.APIStatusError) else {}
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers[name]) * scale)
        except (KeyError, ValueError):
            continue
    return None


def describe_error(error: Exception) -> str:
    """A description of an error, without the content of the request."""
    if isinstance(error, openai.APIStatusError):
        if error.status_code == 407:
            return "status 407, the proxy set by ROUTER_PROXY or HTTP_PROXY requires other credentials"
        body = error.body if isinstance(error.body, Mapping) else {}
        return f"status {error.status_code}, {body.get('message') or error.message}"[:300]
    if type(error.__cause__).__name__ == "ProxyError":  # raised by httpx; other causes may contain a key
        return f"the proxy answered {error.__cause__}"[:300]
    return f"{type(error).__name__}: {error}"[:300]
