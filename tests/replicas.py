"""Two replicas as in `deploy/`, on loopback: nginx, routers, Redis, MLflow on PostgreSQL, and a billing fake OpenAI."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import psycopg
import pytest
import redis
from fake_openai import FakeOpenAI, ReceivedRequest, Reply, chat_events, completion, json_reply, stream_reply
from fault_proxy import FaultProxy
from redis_server import RedisServer
from servers import MlflowServer, folder_for_everybody, free_port, is_listening, postgresql

from router.client import issuing
from router.client.keyfile import Limits, Owner, Roster, locked, read_roster, write_roster
from router.limits.account import day_of, month_of
from router.limits.calls import Place
from router.limits.shared import LAPSE_SECONDS
from router.settings import KEYS_FILE

ROOT = Path(__file__).parent.parent
TEAM, ADA, OWNER = "team", "ada", "owner"  # keys: for the load, with a small budget, of an admin
NANO = 10**9  # nano-dollars per dollar
EXACT = Decimal("1e-6")  # dollars
DOLLARS_PER_MILLION = {  # input, cached input, output; as published, independent of the router's own file
    "gpt-4o-mini": (Decimal("0.15"), Decimal("0.075"), Decimal("0.6")),
    "gpt-4o": (Decimal("2.5"), Decimal("1.25"), Decimal(10)),
}
QUESTIONS = (
    "What is {number} plus {number}? Answer with the number.",
    "Natalia sold {number} clips in April, and half as many in May. How many did she sell altogether?",
    "Which year did the person who invented device number {number} receive the Nobel Prize?",
)


@dataclass(frozen=True)
class Bill:
    """The model and the tokens of one billed answer."""

    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def usd(self) -> Decimal:
        input_price, cached_price, output_price = DOLLARS_PER_MILLION[self.model]
        tokens = (self.input_tokens - self.cached_tokens) * input_price + self.cached_tokens * cached_price
        return (tokens + self.output_tokens * output_price) / 10**6


class BillingOpenAI(FakeOpenAI):
    """Bills every answer that was sent completely, by the request's `user`, which is unique per request."""

    def __init__(self) -> None:
        self.billed: dict[str, Bill] = {}
        self.responses: dict[str, str] = {}  # models by id
        self._answering = 0
        self._chance = random.Random(1)
        super().__init__()

    async def _answer(
        self, request: ReceivedRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        is_post = request.method == "POST"
        self._answering += is_post
        try:
            complete = await super()._answer(request, reader, writer)
            if complete and is_post:
                self.billed[request.json["user"]] = self._bill(request)
        finally:
            self._answering -= is_post
        return complete

    def _next(self, request: ReceivedRequest) -> Reply:
        if request.method == "GET":
            name = request.target.rpartition("/")[2]
            return json_reply({"id": name, "model": self.responses[name]}) if name in self.responses else self.models
        bill = self._bill(request)
        if request.target == "/v1/responses":
            name = f"resp_{len(self.responses)}"
            self.responses[name] = bill.model
            usage = {"input_tokens": bill.input_tokens, "output_tokens": bill.output_tokens}
            usage["input_tokens_details"] = {"cached_tokens": bill.cached_tokens}
            return json_reply({"id": name, "object": "response", "model": bill.model, "output": [], "usage": usage})
        usage = {
            "prompt_tokens": bill.input_tokens,
            "completion_tokens": bill.output_tokens,
            "total_tokens": bill.input_tokens + bill.output_tokens,
            "prompt_tokens_details": {"cached_tokens": bill.cached_tokens},
        }
        if request.json.get("stream"):
            usage_pattern = re.compile(rb'"usage":\{.*\}(?=,"obfuscation")')
            usage_json = b'"usage":' + json_reply(usage).pieces[0]
            pieces = [
                usage_pattern.sub(usage_json, piece) for piece in chat_events(bill.model, ("4", "2") * 3, usage=True)
            ]
            wait = 1.0 if "max_tokens" in request.json else 0.0  # so that many streams are in progress at once
            return stream_reply(*pieces, gap=self._chance.uniform(0.01, 0.08), wait=wait)
        answer = json_reply({**completion(bill.model), "usage": usage})
        answer.wait = self._chance.uniform(0.02, 0.3)
        return answer

    def _bill(self, request: ReceivedRequest) -> Bill:
        body = request.json
        chance = random.Random(body["user"])
        max_tokens = body.get("max_tokens")
        if max_tokens is not None:  # at most as many input tokens as bytes, and at most `max_tokens` output tokens
            return Bill(body["model"], chance.randint(5, 20), 0, chance.randint(max_tokens * 3 // 4, max_tokens))
        tokens = chance.randint(20, 4000)
        return Bill(body["model"], tokens, chance.randint(0, tokens // 2), chance.randint(1, 800))

    def is_quiet(self) -> bool:
        """Whether no answer is in progress: a client gets the last byte a moment before it is billed."""
        return self._answering == 0

    def sum_usd(self, without: set[str]) -> Decimal:
        return sum((bill.usd for user, bill in self.billed.items() if user not in without), Decimal(0))


@dataclass
class RequestOutcome:
    """The outcome of one request."""

    user: str
    whole: bool = False
    status: int = 0
    port: int = 0  # of the router that nginx tried last
    policy: str = ""
    error: str = ""  # its code
    retry: str | None = None  # x-should-retry
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0


@dataclass
class Load:
    """Clients behind nginx: half of the requests are streams, or all of them."""

    origin: str
    key: str  # its secret
    name: str
    all_streams: bool = False
    fields: dict[str, Any] = field(default_factory=dict)  # of the body
    outcomes: list[RequestOutcome] = field(default_factory=list)
    done: int = 0

    async def run(self, requests: int | Iterator[int], clients: int) -> None:
        """Send this number of requests, or one for each item, over `clients` concurrent clients."""
        numbers = iter(range(requests)) if isinstance(requests, int) else requests

        async def client() -> None:
            for number in numbers:
                await self._send_request(session, stream=self.all_streams or number % 2 == 0)

        timeout, connector = aiohttp.ClientTimeout(total=120), aiohttp.TCPConnector(limit=clients)
        headers = {"authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(self.origin, timeout=timeout, connector=connector, headers=headers) as session:
            await asyncio.gather(*(client() for _ in range(clients)))

    async def _send_request(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        """Send one request; retry only while the router is overloaded, as official clients do."""
        outcome = RequestOutcome(f"{self.name}-{os.urandom(6).hex()}")
        self.outcomes.append(outcome)
        question = random.choice(QUESTIONS).format(number=random.randint(2, 999))
        body = {
            "model": "auto",
            "messages": [{"role": "user", "content": question}],
            "user": outcome.user,
            **self.fields,
        }
        try:
            await self._attempt(session, outcome, {**body, "stream": stream})
            while outcome.error == "router_overloaded":
                await self._attempt(session, outcome, {**body, "stream": stream})
        except (aiohttp.ClientError, TimeoutError):
            pass
        finally:
            outcome.ended = time.monotonic()
            self.done += 1

    async def _attempt(self, session: aiohttp.ClientSession, outcome: RequestOutcome, body: dict[str, Any]) -> None:
        async with session.post("/v1/chat/completions", json=body) as response:
            outcome.status = response.status
            outcome.port = int(response.headers["x-upstream"].rpartition(":")[2])
            outcome.policy = response.headers.get("x-router-policy", "")
            outcome.retry = response.headers.get("x-should-retry")
            content = await response.read()
        outcome.error = (json.loads(content)["error"]["code"] or "") if outcome.status >= 400 else ""
        outcome.whole = outcome.status == 200 and (not body["stream"] or content.rstrip().endswith(b"[DONE]"))
        if outcome.status == 503:
            await asyncio.sleep(0.2)  # before the next request

    def failed(self) -> list[RequestOutcome]:
        return [outcome for outcome in self.outcomes if not outcome.whole]


class Replica:
    """`python -m router serve` with its own home."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        self.home, self.port = folder / name, free_port()
        self.starts = 0  # number of starts
        self.log = folder / f"{name}.log"
        prefixes = ("ROUTER_", "OPENAI_", "MLFLOW_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        self._environment |= {"PYTHONPATH": str(ROOT), "ROUTER_HOME": str(self.home), **settings}
        self._folder = folder
        self.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start a router with this home; it replaces an earlier one."""
        self.starts += 1
        self.process = self._run("serve", "--port", str(self.port))

    def export(self) -> int:
        """Export the records that a router has not exported; return the command's exit code."""
        return self._run("export", "--once").wait(120)

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "router", *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )

    def status(self) -> int:
        """The status of `/ready`; 0 if the router does not answer."""
        try:
            return httpx2.get(self.origin + "/ready", timeout=10).status_code
        except httpx2.TransportError:
            return 0

    def until_ready(self) -> None:
        wait_until(lambda: self.status() == 200, f"{self.log}: it is not ready")

    def kill(self, *, pod: bool = False) -> None:
        """Kill the server with SIGKILL; with `pod`, kill the exporter too, as when a machine is lost."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if pod else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop_exporting(self) -> None:
        """Stop the exporter with SIGSTOP, so that records stay in the journal."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        exporters = [pid for pid in children if b"router.exporter" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(exporters) == 1
        os.kill(int(exporters[0]), signal.SIGSTOP)

    def bill(self, admin: str) -> dict[str, Any]:
        return self._get("/router/usage", admin).json()["total"]

    def metered(self, admin: str) -> dict[str, Decimal]:
        """`/metrics`: dollars by key since the start."""
        text = self._get("/metrics", admin).text
        samples = re.findall(r'^router_key_cost_usd_total\{key="(.+?)"\} (\S+)$', text, re.MULTILINE)
        return {key: Decimal(usd) for key, usd in samples}

    def _get(self, path: str, admin: str) -> httpx2.Response:
        headers = {"authorization": f"Bearer {admin}"}
        return httpx2.get(self.origin + path, headers=headers, timeout=30).raise_for_status()


@dataclass
class Deployment:
    """All servers of the deployment."""

    openai: BillingOpenAI
    replicas: tuple[Replica, Replica]
    mlflow: MlflowServer
    mlflow_proxy: FaultProxy
    redis: RedisServer
    origin: str  # nginx
    database: str
    keys: dict[str, str]  # secrets by name
    unmetered: tuple[tuple[int, ...], dict[str, Decimal]] = ((), {})  # starts of both; dollars not in /metrics

    def load(self, name: str = TEAM, *, all_streams: bool = False, **fields: Any) -> Load:
        return Load(self.origin, self.keys[name], name, all_streams, fields)

    def limit(self, name: str, **limits: float) -> None:
        """Change the limits of a key at both replicas."""
        headers = {"authorization": f"Bearer {self.keys[OWNER]}"}
        for replica in self.replicas:
            url = f"{replica.origin}/router/keys/{name}"
            httpx2.patch(url, json=limits, headers=headers, timeout=30).raise_for_status()

    # the content of each store

    def rows(self) -> dict[str, Bill]:
        """The usage tables: the bill of each user's answered request."""
        select = "select user_name, model, input_tokens, cached_input_tokens, output_tokens from router_requests"
        records = self._select("usage", f"{select} where status < 400")
        rows = {row[0]: Bill(*row[1:]) for row in records}
        assert len(records) == len(rows), [row for row in records if sum(row[0] == other[0] for other in records) > 1]
        return rows

    def refused(self) -> int:
        """The usage tables: the number of refused requests."""
        return self._select("usage", "select count(*) from router_requests where status >= 400")[0][0]

    def ledger(self) -> dict[str, Decimal]:
        """The usage tables: dollars that count against the budget of each key."""
        usd = "coalesce(cost_usd, 0) + coalesce(kept_usd, 0) + wasted_usd"
        sums = self._select("usage", f"select key_id, sum({usd}) from router_requests group by key_id")
        return {key: Decimal(usd_spent) for key, usd_spent in sums}

    def traces(self) -> dict[str, tuple[int, int, int, Decimal]]:
        """MLflow: tokens, root spans and dollars of the trace of each user's answered request."""
        users_by_trace = dict(
            self._select("usage", "select trace_id, user_name from router_requests where status < 400")
        )
        refused = {row[0] for row in self._select("usage", "select trace_id from router_requests where status >= 400")}
        rows = self._select(
            "mlflow",
            "select request_id, input_tokens, output_tokens,"
            " (select count(*) from spans where trace_id = request_id and parent_span_id is null), total_cost"
            " from trace_info",
        )
        ids = [(row[0].removeprefix("tr-"), row[1:]) for row in rows]
        return {
            users_by_trace.get(trace, trace): (*values[:3], Decimal(values[3] or 0).quantize(Decimal("1e-9")))
            for trace, values in ids
            if trace not in refused
        }

    def limits(self, name: str) -> tuple[Decimal, Decimal]:
        """Redis: dollars of a key that are spent and on hold this month."""
        with self._redis() as client:
            counters = {field.decode(): value for field, value in client.hgetall(self._place(name).keys[0]).items()}
        usd_by_kind = {
            kind: Decimal(int(counters.get(f"{kind}:month", 0))) / NANO for kind in ("ledger", "spent", "held")
        }
        return usd_by_kind["ledger"] + usd_by_kind["spent"], usd_by_kind["held"]

    def holds(self, name: str) -> list[Decimal]:
        """Redis: dollars of every open hold of a key."""
        with self._redis() as client:
            return [Decimal(int(member.split()[2])) / NANO for member in client.zrangebyscore(*self._holds(name))]

    def age_holds(self, name: str) -> None:
        """Age the holds of a key by the lifetime of a hold that is not renewed."""
        with self._redis() as client:
            for member in client.zrangebyscore(*self._holds(name)):
                client.zincrby(self._place(name).keys[1], -LAPSE_SECONDS * 1e6, member)

    def _holds(self, name: str) -> tuple[str, int, float]:
        return self._place(name).keys[1], 0, 8e15  # lapsed holds have higher scores, settled holds lower ones

    def _place(self, name: str) -> Place:
        return Place.of(Owner("key", name), day_of(time.time_ns()), month_of(time.time_ns()))

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis.url)

    def _select(self, name: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(f"{self.database}/{name}") as connection:
            return connection.execute(query).fetchall()

    # comparison of the stores

    def agree(self, lost: set[str]) -> None:
        """Wait for all records, then compare OpenAI's bill, the usage tables, MLflow, both bills and /metrics."""
        wait_until(self.openai.is_quiet, "the OpenAI still answers")
        billed = {user: bill for user, bill in self.openai.billed.items() if user not in lost}
        wait_while_growing(lambda: (len(self.rows()), len(self.traces())), (len(billed), len(billed)))
        rows = self.rows()
        assert rows == billed, (set(rows) ^ set(billed), len(rows), len(billed), set(self.traces()) ^ set(billed))
        expected = {
            user: (bill.input_tokens, bill.output_tokens, 1, bill.usd.quantize(EXACT / 1000))
            for user, bill in billed.items()
        }
        assert self.traces() == expected
        for replica in self.replicas:
            bill = replica.bill(self.keys[OWNER])
            counts = {name: bill[name] for name in ("answered", "unknown_cost_requests")}
            assert counts == {"answered": len(billed), "unknown_cost_requests": 0}, bill
            assert abs(Decimal(bill["cost_usd"]) - self.openai.sum_usd(without=lost)) < EXACT, bill
        self._metrics_agree()
        with contextlib.suppress(KeyError), Path(os.environ["REPLICAS_REPORT"]).open("a") as report:
            sums = ", ".join(f"{name} ${usd:.6f}" for name, usd in sorted(self.ledger().items()))
            counts_text = f"{len(billed)} answered, {self.refused()} refused, {len(lost)} lost"
            report.write(f"{counts_text}; ${self.openai.sum_usd(without=lost):.6f} in all ({sums})\n")

    def _metrics_agree(self) -> None:
        """Compare the growth of both replicas' /metrics with the usage tables', since the last start of a replica."""
        ledger, starts = self.ledger(), tuple(replica.starts for replica in self.replicas)
        metered = [replica.metered(self.keys[OWNER]) for replica in self.replicas]
        missing = {
            key: usd - sum(usd_by_key.get(key, Decimal(0)) for usd_by_key in metered) for key, usd in ledger.items()
        }
        if self.unmetered[0] == starts:
            for key, usd in missing.items():
                assert abs(usd - self.unmetered[1].get(key, Decimal(0))) < EXACT, (key, usd, self.unmetered)
        self.unmetered = starts, missing

    def limits_agree(self, *names: str, lapsed: Decimal = Decimal(0)) -> None:
        """Redis has the same spending as the usage tables, and no open hold.

        Up to `lapsed` more is spent for requests of a replica that was killed. A Redis that was empty reads the tables
        once more, a minute later.
        """

        def gaps() -> list[Decimal]:
            ledger = self.ledger()
            return [self.limits(name)[0] - ledger.get(name, Decimal(0)) for name in names]

        def agreed() -> bool:
            return all(-EXACT < gap < lapsed + EXACT for gap in gaps()) and not any(
                self.limits(name)[1] for name in names
            )

        with contextlib.suppress(AssertionError):
            wait_until(agreed, "", 150)
        assert agreed(), (gaps(), self.ledger(), [self.limits(name) for name in names])


def wait_until(condition: Callable[[], bool], why: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.1)


def wait_while_growing(numbers: Callable[[], tuple[int, ...]], expected: tuple[int, ...], seconds: float = 90) -> None:
    """Wait until the numbers are as expected, or have not changed for `seconds`."""
    previous, changed_at = (), time.monotonic()
    while (current := numbers()) != expected and time.monotonic() < changed_at + seconds:
        if current != previous:
            previous, changed_at = current, time.monotonic()
        time.sleep(0.1)


@contextlib.contextmanager
def deployment() -> Iterator[Deployment]:
    """Start all servers; skip the test if nginx or PostgreSQL is missing."""
    nginx = shutil.which("nginx", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if nginx is None:
        pytest.skip("there is no nginx on this machine (apt-get install nginx postgresql)")
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgresql())
        database = url.replace("+psycopg", "")
        with psycopg.connect(f"{database}/postgres", autocommit=True) as connection:
            for name in ("usage", "mlflow"):
                connection.execute(f"create database {name}")
        folder = stack.enter_context(folder_for_everybody())
        openai = BillingOpenAI()
        stack.callback(openai.close)
        mlflow = MlflowServer(f"{url}/mlflow", folder, wait=False)
        stack.callback(mlflow.kill)
        proxy = FaultProxy(mlflow.port)
        stack.callback(proxy.close)
        redis_server = RedisServer(folder)
        stack.callback(redis_server.kill)
        settings = {
            "OPENAI_API_KEY": "sk-of-the-tests",
            "OPENAI_BASE_URL": openai.url,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy.port}",
            "ROUTER_USAGE_DATABASE": f"{url}/usage",
            "ROUTER_STATE": redis_server.url,
        }
        keys = make_keys(folder / "one", folder / "two")
        replicas = (
            Replica("one", folder, {**settings, "ROUTER_STATE_FAILURE": "closed"}),
            Replica("two", folder, {**settings, "ROUTER_STATE_FAILURE": "open"}),
        )
        for replica in replicas:
            stack.callback(replica.kill, pod=True)
        port = free_port()
        (folder / "nginx.conf").write_text(nginx_configuration(folder, port, *replicas))
        command = [nginx, "-c", folder / "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
        with (folder / "nginx.log").open("wb") as log:
            balancer = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(balancer.wait)
        stack.callback(balancer.terminate)
        wait_until(lambda: is_listening(port), (folder / "nginx.log").read_text())
        mlflow.wait()
        for replica in replicas:
            replica.until_ready()
        yield Deployment(openai, replicas, mlflow, proxy, redis_server, f"http://127.0.0.1:{port}", database, keys)
        for log in sorted(folder.glob("*.log")):  # shown where a test fails
            sys.stdout.write(f"--- {log.name}\n{log.read_text()[-6000:]}\n")


def make_keys(first_home: Path, second_home: Path) -> dict[str, str]:
    """Create the same keys in two homes; return their secrets by name."""
    limits = {TEAM: Limits(usd_a_month=1e4, requests_a_minute=10**6), ADA: Limits(usd_a_month=1.0), OWNER: None}
    secrets = {}
    for home in (first_home, second_home):
        home.mkdir(mode=0o700)
    with locked(first_home / KEYS_FILE) as path:
        keys = read_roster(path).keys
        for name, key_limits in limits.items():
            keys, secrets[name] = issuing.add(keys, name, time.time(), admin=name == OWNER, limits=key_limits)
        write_roster(path, Roster(keys))
    shutil.copy(path, second_home)
    return secrets


def nginx_configuration(folder: Path, port: int, first: Replica, second: Replica) -> str:
    """`deploy/nginx.conf` for these ports, without Docker's `resolve`; a header names the upstream."""
    conf = (ROOT / "deploy" / "nginx.conf").read_text()
    for old, new in (
        (" resolve ", " "),
        ("router-1:8000", f"127.0.0.1:{first.port}"),
        ("router-2:8000", f"127.0.0.1:{second.port}"),
        ("listen 8080 ", f"listen 127.0.0.1:{port} "),
        (" /tmp/", f" {folder}/"),
        ("merge_slashes off;", "merge_slashes off; add_header x-upstream $upstream_addr always;"),
        (
            "add_header Retry-After 2 always;",
            "add_header Retry-After 2 always; add_header x-upstream $upstream_addr always;",
        ),
    ):
        assert old in conf, old
        conf = conf.replace(old, new)
    return conf
