"""A relay for the judge's calls on loopback: it stores replies, keeps to the budget, and notices outages in a minute.

MLflow's judges send their own requests: without a cache, with ten retries that take three minutes per call, and with
tokens that are counted nowhere. So they are pointed at this relay, which sends the requests. A stored reply costs
nothing. After an outage is noticed, the relay refuses every call with a status that MLflow does not retry.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import openai

from calibration import network
from calibration.answers.answers import Endpoint
from calibration.answers.errors import describe_error, is_retryable, refuses_access, retry_after, status_of
from calibration.answers.request_adapter import RequestAdapter
from calibration.ledger import Ledger
from calibration.policies import load_catalogue
from calibration.spending import Meter, StoppedError, max_cost_usd, price_of
from router.policy.address import mask_credentials
from router.policy.usage import Usage

PATIENCE_SECONDS = 40.0  # without any reply, before the judge counts as unavailable
TIMEOUT_SECONDS = 25.0
LONGEST_BACKOFF_SECONDS = 10.0
MOST_REFUSED_PROMPTS = 10  # before the first verdict; then the judge cannot be used at all
MAX_BODY_BYTES = 16 * 2**20


class JudgeRelay:
    """An HTTP server that relays the judge's calls while it is open; a context manager."""

    def __init__(
        self, endpoint: Endpoint, meter: Meter, ledger: Ledger, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._endpoint = endpoint
        self._meter = meter
        self._ledger = ledger
        self._patience = patience_seconds
        self._lock = threading.Lock()
        self._failing_since: float | None = None
        self._has_answered = len(ledger) > 0
        self._refused_prompts: set[str] = set()
        self._resume_at = 0.0
        self._adapting = RequestAdapter(load_catalogue())
        self._client = network.openai_client(
            endpoint.base_url, endpoint.api_key, max_retries=0, timeout=TIMEOUT_SECONDS
        )
        self.stopped: StoppedError | None = None
        path = f"/{secrets.token_urlsafe(16)}/v1"  # secret, so that other users of the machine cannot use the key
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self, path))
        self._server.daemon_threads = False  # closing waits for replies in flight, which are billed, and stores them
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def __enter__(self) -> JudgeRelay:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

    @contextlib.contextmanager
    def in_environment(self) -> Iterator[None]:
        """Point MLflow's judges at the relay."""
        with judges_at(self.base_url):
            yield

    def stop(self, reason: StoppedError) -> None:
        """Refuse all calls from now on."""
        self.stopped = self.stopped or reason

    def reply(self, body: dict[str, Any]) -> Mapping[str, Any]:
        """The judge's reply to a chat body, from the ledger or by a request.

        Raises:
            StoppedError: by budget, outage, refusal or interruption.
            openai.APIError: the judge refuses this prompt.
        """
        request = json.dumps([self._endpoint.base_url, body], sort_keys=True, ensure_ascii=False)
        key = hashlib.sha256(request.encode()).hexdigest()
        kept = self._ledger.get(key)
        if kept is not None:
            return kept
        reply = self._call(body)
        if is_verdict(reply):
            self._ledger.add(key, reply)
        return reply

    def _call(self, body: dict[str, Any]) -> dict[str, Any]:
        model = body["model"]
        max_usd = max_cost_usd(price_of(self._meter.prices, model), body, self._endpoint.max_output_tokens)
        attempt = 0
        while True:
            self._wait()
            self._meter.wait_to_reserve(max_usd)
            usage: Usage | None = None
            began = time.monotonic()
            try:
                sent = self._adapt(body)
                # not `chat.completions.create`, whose calls MLflow traces during an evaluation
                reply: dict[str, Any] = self._client.post("/chat/completions", cast_to=dict, body=sent)
                usage = Usage.from_openai(reply.get("usage") or {})
            except openai.APIError as error:
                if isinstance(error, openai.APIStatusError):
                    self._adapting.learn_from_error(model, error)
                if self._adapt(body) == sent:  # else this call or another one learnt what the judge accepts
                    self._handle_error(error, json.dumps(body), attempt, began)
                attempt += 1
            else:
                self._failing_since, self._has_answered = None, True
                return reply
            finally:
                self._meter.settle(max_usd, "judge", model, usage)

    def _adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        return self._adapting.adapt(
            {"max_tokens": self._endpoint.max_output_tokens, **self._endpoint.parameters, **body}
        )

    def _wait(self) -> None:
        while True:
            if self.stopped is not None:
                raise self.stopped
            wait = self._resume_at - time.monotonic()
            if wait <= 0:
                return
            time.sleep(min(wait, 0.2))

    def _handle_error(self, error: openai.APIError, prompt: str, attempt: int, began: float) -> None:
        """Handle a failed request: return to retry it, or raise to fail this prompt.

        An outage stops the relay, and so does a judge that refuses the key or whatever it is asked.
        """
        where = f"the judge at {mask_credentials(self._endpoint.base_url)}"
        kept = "Answers and verdicts so far are stored"
        is_refused = not is_retryable(error)
        with self._lock:
            if is_refused and not self._has_answered:
                self._refused_prompts.add(prompt)
            is_useless = len(self._refused_prompts) >= MOST_REFUSED_PROMPTS and not self._has_answered
        if refuses_access(error) or is_useless:
            self.stop(StoppedError(f"{where} refuses: {describe_error(error)}. Check --judge and its key. {kept}"))
        elif is_refused:
            raise error  # the fault of this prompt
        elif status_of(error) == 429:
            self._failing_since = None
        else:
            with self._lock:
                self._failing_since = self._failing_since or began
                failing = time.monotonic() - self._failing_since
            if failing > self._patience:
                advice = "run the same command again when the judge is available, or choose another with --judge"
                self.stop(
                    StoppedError(
                        f"{where} did not answer for {failing:.0f} s ({describe_error(error)}). {kept}; {advice}"
                    )
                )
        backoff = min(0.5 * 2**attempt, LONGEST_BACKOFF_SECONDS)
        self._resume_at = max(self._resume_at, time.monotonic() + (retry_after(error) or backoff))


@contextlib.contextmanager
def judges_at(base_url: str) -> Iterator[None]:
    """Point MLflow's judges at a relay; the openai client, which reads OPENAI_BASE_URL only, is not affected."""
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if exempt.strip() != "*":
        exempt = ",".join(filter(None, [exempt, "127.0.0.1"]))
    variables = {
        "OPENAI_API_BASE": base_url,
        "OPENAI_API_KEY": os.environ.get("OPENAI_API_KEY") or "held-by-the-relay",
        "NO_PROXY": exempt,
        "no_proxy": exempt,  # has precedence over NO_PROXY
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


_FENCE = re.compile(r"^\s*+```(?:json)?\s*+|(?<!\s)\s*+```\s*+$")


def is_verdict(reply: Mapping[str, Any]) -> bool:
    """Whether a judge's reply has a verdict (yes, no, true, false or a number); other replies are not stored."""
    try:
        text = reply["choices"][0]["message"]["content"]
        result = json.loads(_FENCE.sub("", text), strict=False)["result"]
    except (KeyError, IndexError, TypeError, ValueError):
        return False
    return isinstance(result, bool | int | float) or str(result).strip().lower() in ("yes", "no", "true", "false")


def _handler(relay: JudgeRelay, path: str) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = TIMEOUT_SECONDS  # of an idle connection

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            if self.path != f"{path}/chat/completions" or length > MAX_BODY_BYTES:
                self._send(404, {"error": {"message": "not found"}})
                return
            try:
                self._send(200, relay.reply(json.loads(self.rfile.read(length))))
            except StoppedError as reason:
                relay.stop(reason)
                # MLflow does not retry status 400
                self._send(400, {"error": {"message": f"the calibration has stopped: {type(reason).__name__}"}})
            except openai.APIError as error:
                self._send(400, {"error": {"message": describe_error(error)}})

        def _send(self, status: int, value: Mapping[str, Any]) -> None:
            content = json.dumps(value).encode()
            with contextlib.suppress(ConnectionError):  # the client has disconnected
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.send_header("connection", "close")  # closing the server waits for open connections
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the signature is the library's
            """Requests to the relay are not logged."""

    return Handler
