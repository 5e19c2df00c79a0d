"""Two replicas as in `deploy/`, on loopback: nginx, routers, Redis, MLflow on PostgreSQL, and an OpenAI that bills."""

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
from fake_openai import FakeOpenAI, Received, Say, chat_events, completion, events, json_answer
from fault_proxy import FaultProxy
from redis_server import RedisServer
from servers import MlflowServer, folder_for_everybody, free_port, is_listening, postgresql

from router.client import issuing
from router.client.keyfile import Limits, Roster, locked, read_roster, write_roster
from router.limits.account import day_of, month_of
from router.limits.calls import Place
from router.limits.shared import LAPSE_SECONDS
from router.settings import KEYS_FILE

ROOT = Path(__file__).parent.parent
TEAM, ADA, OWNER = "team", "ada", "owner"  # keys: of the load, of a small budget, of an admin
NANO = 10**9  # nano-dollars of a dollar
EXACT = Decimal("1e-6")  # dollars
DOLLARS_PER_MILLION = {  # input, cached input, output; as published, and not read from the router's own file
    "gpt-4o-mini": (Decimal("0.15"), Decimal("0.075"), Decimal("0.6")),
    "gpt-4o": (Decimal("2.5"), Decimal("1.25"), Decimal(10)),
}
QUESTIONS = (
    "What is {number} plus {number}? Answer with the number.",
    "Natalia sold {number} clips in April, and half as many in May. How many did she sell altogether?",
    "Which year did the person who invented device number {number} receive the Nobel Prize?",
)


@dataclass(frozen=True)
class Billed:
    """What one answer costs."""

    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    @property
    def usd(self) -> Decimal:
        fresh, cached, written = DOLLARS_PER_MILLION[self.model]
        tokens = (self.input_tokens - self.cached_tokens) * fresh + self.cached_tokens * cached
        return (tokens + self.output_tokens * written) / 10**6


class BillingOpenAI(FakeOpenAI):
    """Bills every answer that it wrote to the end, under the `user` of the request; that is another one each time."""

    def __init__(self) -> None:
        self.billed: dict[str, Billed] = {}
        self.responses: dict[str, str] = {}  # models by id
        self._answering = 0
        self._chance = random.Random(1)
        super().__init__()

    async def _answer(self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        answers = request.method == "POST"
        self._answering += answers
        try:
            whole = await super()._answer(request, reader, writer)
            if whole and answers:
                self.billed[request.json["user"]] = self._bill(request)
        finally:
            self._answering -= answers
        return whole

    def _next(self, request: Received) -> Say:
        if request.method == "GET":
            name = request.target.rpartition("/")[2]
            return json_answer({"id": name, "model": self.responses[name]}) if name in self.responses else self.models
        bill = self._bill(request)
        if request.target == "/v1/responses":
            name = f"resp_{len(self.responses)}"
            self.responses[name] = bill.model
            usage = {"input_tokens": bill.input_tokens, "output_tokens": bill.output_tokens}
            usage["input_tokens_details"] = {"cached_tokens": bill.cached_tokens}
            return json_answer({"id": name, "object": "response", "model": bill.model, "output": [], "usage": usage})
        usage = {
            "prompt_tokens": bill.input_tokens,
            "completion_tokens": bill.output_tokens,
            "total_tokens": bill.input_tokens + bill.output_tokens,
            "prompt_tokens_details": {"cached_tokens": bill.cached_tokens},
        }
        if request.json.get("stream"):
            told = re.compile(rb'"usage":\{.*\}(?=,"obfuscation")')
            written = b'"usage":' + json_answer(usage).pieces[0]
            pieces = [told.sub(written, piece) for piece in chat_events(bill.model, ("4", "2") * 3, usage=True)]
            wait = 1.0 if "max_tokens" in request.json else 0.0  # so that many are under way at once
            return events(*pieces, gap=self._chance.uniform(0.01, 0.08), wait=wait)
        answer = json_answer({**completion(bill.model), "usage": usage})
        answer.wait = self._chance.uniform(0.02, 0.3)
        return answer

    def _bill(self, request: Received) -> Billed:
        asked = request.json
        chance = random.Random(asked["user"])
        most = asked.get("max_tokens")
        if most is not None:  # as a client that keeps to what it said: no more tokens than bytes, no longer an answer
            return Billed(asked["model"], chance.randint(5, 20), 0, chance.randint(most * 3 // 4, most))
        tokens = chance.randint(20, 4000)
        return Billed(asked["model"], tokens, chance.randint(0, tokens // 2), chance.randint(1, 800))

    def is_quiet(self) -> bool:
        """Whether nothing is being answered: a client has the last byte a moment before it is billed."""
        return self._answering == 0

    def sum_usd(self, without: set[str]) -> Decimal:
        return sum((bill.usd for user, bill in self.billed.items() if user not in without), Decimal(0))


@dataclass
class Asked:
    """What became of one request."""

    user: str
    whole: bool = False
    status: int = 0
    port: int = 0  # of the router that nginx asked last
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
    asked: list[Asked] = field(default_factory=list)
    done: int = 0

    async def run(self, requests: int, clients: int) -> None:
        """Ask so many by so many at once."""
        numbers = iter(range(requests))

        async def client() -> None:
            for number in numbers:
                await self._ask(session, stream=self.all_streams or number % 2 == 0)

        timeout, connector = aiohttp.ClientTimeout(total=120), aiohttp.TCPConnector(limit=clients)
        headers = {"authorization": f"Bearer {self.key}"}
        async with aiohttp.ClientSession(self.origin, timeout=timeout, connector=connector, headers=headers) as session:
            await asyncio.gather(*(client() for _ in range(clients)))

    async def _ask(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        """Ask once; again only where a busy machine is told so, as official clients do."""
        asked = Asked(f"{self.name}-{os.urandom(6).hex()}")
        self.asked.append(asked)
        question = random.choice(QUESTIONS).format(number=random.randint(2, 999))
        body = {"model": "auto", "messages": [{"role": "user", "content": question}], "user": asked.user, **self.fields}
        try:
            await self._attempt(session, asked, {**body, "stream": stream})
            while asked.error == "router_overloaded":
                await self._attempt(session, asked, {**body, "stream": stream})
        except (aiohttp.ClientError, TimeoutError):
            pass
        finally:
            asked.ended = time.monotonic()
            self.done += 1

    async def _attempt(self, session: aiohttp.ClientSession, asked: Asked, body: dict[str, Any]) -> None:
        async with session.post("/v1/chat/completions", json=body) as response:
            asked.status = response.status
            asked.port = int(response.headers["x-upstream"].rpartition(":")[2])
            asked.policy = response.headers.get("x-router-policy", "")
            asked.retry = response.headers.get("x-should-retry")
            content = await response.read()
        asked.error = (json.loads(content)["error"]["code"] or "") if asked.status >= 400 else ""
        asked.whole = asked.status == 200 and (not body["stream"] or content.rstrip().endswith(b"[DONE]"))
        if asked.status == 503:
            await asyncio.sleep(0.2)  # before anything else is asked

    def failed(self) -> list[Asked]:
        return [asked for asked in self.asked if not asked.whole]


class Replica:
    """`python -m router serve` with a home of its own."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        self.home, self.port = folder / name, free_port()
        self.starts = 0  # how often it was started
        self.log = folder / f"{name}.log"
        ours = ("ROUTER_", "OPENAI_", "MLFLOW_")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self._environment |= {"PYTHONPATH": str(ROOT), "ROUTER_HOME": str(self.home), **settings}
        self._folder = folder
        self.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start a router with this home: a new replica, where there was one before."""
        self.starts += 1
        self.process = self._run("serve", "--port", str(self.port))

    def export(self) -> int:
        """The command that ships what a router left behind."""
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
        """What `/ready` says; 0 where nobody answers."""
        try:
            return httpx2.get(self.origin + "/ready", timeout=10).status_code
        except httpx2.TransportError:
            return 0

    def until_ready(self) -> None:
        until(lambda: self.status() == 200, f"{self.log}: it is not ready")

    def kill(self, *, pod: bool = False) -> None:
        """End it by SIGKILL: its server alone, or with it its exporter, as where a machine is lost."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if pod else os.kill)(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def bill(self, admin: str) -> dict[str, Any]:
        return self._get("/router/usage", admin).json()["total"]

    def metered(self, admin: str) -> dict[str, Decimal]:
        """`/metrics`: dollars by key, since it was started."""
        told = self._get("/metrics", admin).text
        found = re.findall(r'^router_key_cost_usd_total\{key="(.+?)"\} (\S+)$', told, re.MULTILINE)
        return {key: Decimal(usd) for key, usd in found}

    def _get(self, path: str, admin: str) -> httpx2.Response:
        headers = {"authorization": f"Bearer {admin}"}
        return httpx2.get(self.origin + path, headers=headers, timeout=30).raise_for_status()


@dataclass
class Deployment:
    """All of it."""

    openai: BillingOpenAI
    replicas: tuple[Replica, Replica]
    mlflow: MlflowServer
    way_to_mlflow: FaultProxy
    redis: RedisServer
    origin: str  # nginx
    database: str
    keys: dict[str, str]  # secrets by name
    unmetered: tuple[tuple[int, ...], dict[str, Decimal]] = ((), {})  # starts of both; dollars not in /metrics

    def load(self, name: str = TEAM, *, all_streams: bool = False, **fields: Any) -> Load:
        return Load(self.origin, self.keys[name], name, all_streams, fields)

    def limit(self, name: str, **limits: float) -> None:
        """Change the limits of a key, at both replicas."""
        headers = {"authorization": f"Bearer {self.keys[OWNER]}"}
        for replica in self.replicas:
            url = f"{replica.origin}/router/keys/{name}"
            httpx2.patch(url, json=limits, headers=headers, timeout=30).raise_for_status()

    # what each of the stores says

    def rows(self) -> dict[str, Billed]:
        """The usage tables: what each user's answered request was counted as."""
        select = "select user_name, model, input_tokens, cached_input_tokens, output_tokens from router_requests"
        found = self._select("usage", f"{select} where status < 400")
        rows = {row[0]: Billed(*row[1:]) for row in found}
        assert len(found) == len(rows), [row for row in found if sum(row[0] == other[0] for other in found) > 1]
        return rows

    def refused(self) -> int:
        """The usage tables: how many requests were refused."""
        return self._select("usage", "select count(*) from router_requests where status >= 400")[0][0]

    def ledger(self) -> dict[str, Decimal]:
        """The usage tables: dollars that count against the budget of each key."""
        usd = "coalesce(cost_usd, 0) + coalesce(kept_usd, 0) + wasted_usd"
        found = self._select("usage", f"select key_id, sum({usd}) from router_requests group by key_id")
        return {key: Decimal(spent) for key, spent in found}

    def traces(self) -> dict[str, tuple[int, int, int, Decimal]]:
        """MLflow: tokens, root spans and dollars of the trace of each user's answered request."""
        named = dict(self._select("usage", "select trace_id, user_name from router_requests where status < 400"))
        refused = {row[0] for row in self._select("usage", "select trace_id from router_requests where status >= 400")}
        found = self._select(
            "mlflow",
            "select request_id, input_tokens, output_tokens,"
            " (select count(*) from spans where trace_id = request_id and parent_span_id is null), total_cost"
            " from trace_info",
        )
        ids = [(row[0].removeprefix("tr-"), row[1:]) for row in found]
        return {
            named.get(trace, trace): (*told[:3], Decimal(told[3] or 0).quantize(Decimal("1e-9")))
            for trace, told in ids
            if trace not in refused
        }

    def limits(self, name: str) -> tuple[Decimal, Decimal]:
        """Redis: dollars of a key that are spent and held this month."""
        with self._redis() as client:
            kept = {field.decode(): value for field, value in client.hgetall(self._place(name).keys[0]).items()}
        told = {kind: Decimal(int(kept.get(f"{kind}:month", 0))) / NANO for kind in ("ledger", "spent", "held")}
        return told["ledger"] + told["spent"], told["held"]

    def holds(self, name: str) -> list[Decimal]:
        """Redis: dollars of every hold of a key that is open."""
        with self._redis() as client:
            return [Decimal(int(member.split()[2])) / NANO for member in client.zrangebyscore(*self._holds(name))]

    def age_holds(self, name: str) -> None:
        """Have as much time go by as a hold lives that nobody renews."""
        with self._redis() as client:
            for member in client.zrangebyscore(*self._holds(name)):
                client.zincrby(self._place(name).keys[1], -LAPSE_SECONDS * 1e6, member)

    def _holds(self, name: str) -> tuple[str, int, float]:
        return self._place(name).keys[1], 0, 8e15  # above are holds that lapsed, below those that were settled

    def _place(self, name: str) -> Place:
        return Place.of(name, day_of(time.time_ns()), month_of(time.time_ns()))

    def _redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis.url)

    def _select(self, name: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(f"{self.database}/{name}") as connection:
            return connection.execute(query).fetchall()

    # whether they agree

    def agree(self, lost: set[str]) -> None:
        """Wait until all has arrived, and compare: the OpenAI, the usage tables, MLflow, both bills, and /metrics."""
        until(self.openai.is_quiet, "the OpenAI still answers")
        billed = {user: bill for user, bill in self.openai.billed.items() if user not in lost}
        while_it_grows(lambda: (len(self.rows()), len(self.traces())), (len(billed), len(billed)))
        rows = self.rows()
        assert rows == billed, (set(rows) ^ set(billed), len(rows), len(billed), set(self.traces()) ^ set(billed))
        expected = {
            user: (each.input_tokens, each.output_tokens, 1, each.usd.quantize(EXACT / 1000))
            for user, each in billed.items()
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
            told = f"{len(billed)} answered, {self.refused()} refused, {len(lost)} lost"
            report.write(f"{told}; ${self.openai.sum_usd(without=lost):.6f} in all ({sums})\n")

    def _metrics_agree(self) -> None:
        """What /metrics of both add up to grew as the usage tables did, since a replica was started last."""
        ledger, starts = self.ledger(), tuple(replica.starts for replica in self.replicas)
        metered = [replica.metered(self.keys[OWNER]) for replica in self.replicas]
        missing = {key: usd - sum(each.get(key, Decimal(0)) for each in metered) for key, usd in ledger.items()}
        if self.unmetered[0] == starts:
            for key, usd in missing.items():
                assert abs(usd - self.unmetered[1].get(key, Decimal(0))) < EXACT, (key, usd, self.unmetered)
        self.unmetered = starts, missing

    def limits_agree(self, *names: str, lapsed: Decimal = Decimal(0)) -> None:
        """Redis has as spent what the usage tables have, and nothing is held.

        Up to `lapsed` more is spent for requests of a replica that was killed. A Redis that was empty reads the tables
        once more, a minute later.
        """

        def gaps() -> list[Decimal]:
            ledger = self.ledger()
            return [self.limits(name)[0] - ledger.get(name, Decimal(0)) for name in names]

        def agreed() -> bool:
            return all(-EXACT < gap < lapsed + EXACT for gap in gaps()) and not any(self.limits(n)[1] for n in names)

        with contextlib.suppress(AssertionError):
            until(agreed, "", 150)
        assert agreed(), (gaps(), self.ledger(), [self.limits(name) for name in names])


def until(condition: Callable[[], bool], why: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why
        time.sleep(0.1)


def while_it_grows(numbers: Callable[[], tuple[int, ...]], most: tuple[int, ...], seconds: float = 90) -> None:
    """Wait until the numbers are what they should be, or have been the same for so long."""
    seen, since = (), time.monotonic()
    while (now := numbers()) != most and time.monotonic() < since + seconds:
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.1)


@contextlib.contextmanager
def deployment() -> Iterator[Deployment]:
    """Start everything; skips where there is no nginx or no PostgreSQL."""
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
        between = FaultProxy(mlflow.port)
        stack.callback(between.close)
        state = RedisServer(folder)
        stack.callback(state.kill)
        settings = {
            "OPENAI_API_KEY": "sk-of-the-tests",
            "OPENAI_BASE_URL": openai.url,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{between.port}",
            "ROUTER_USAGE_DATABASE": f"{url}/usage",
            "ROUTER_STATE": state.url,
        }
        keys = make_keys(folder / "one", folder / "two")
        replicas = (
            Replica("one", folder, {**settings, "ROUTER_STATE_FAILURE": "closed"}),
            Replica("two", folder, {**settings, "ROUTER_STATE_FAILURE": "open"}),
        )
        for replica in replicas:
            stack.callback(replica.kill, pod=True)
        port = free_port()
        (folder / "nginx.conf").write_text(adapted(folder, port, *replicas))
        command = [nginx, "-c", folder / "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
        with (folder / "nginx.log").open("wb") as log:
            balancer = subprocess.Popen(command, stdout=log, stderr=log)
        stack.callback(balancer.wait)
        stack.callback(balancer.terminate)
        until(lambda: is_listening(port), (folder / "nginx.log").read_text())
        mlflow.wait()
        for replica in replicas:
            replica.until_ready()
        yield Deployment(openai, replicas, mlflow, between, state, f"http://127.0.0.1:{port}", database, keys)
        for log in sorted(folder.glob("*.log")):  # shown where a test fails
            sys.stdout.write(f"--- {log.name}\n{log.read_text()[-6000:]}\n")


def make_keys(one: Path, other: Path) -> dict[str, str]:
    """The same keys in two homes; their secrets by name."""
    limits = {TEAM: Limits(usd_a_month=1e4, requests_a_minute=10**6), ADA: Limits(usd_a_month=1.0), OWNER: None}
    secrets = {}
    for home in (one, other):
        home.mkdir(mode=0o700)
    with locked(one / KEYS_FILE) as path:
        keys = read_roster(path).keys
        for name, given in limits.items():
            keys, secrets[name] = issuing.add(keys, name, time.time(), admin=name == OWNER, limits=given)
        write_roster(path, Roster(keys))
    shutil.copy(path, other)
    return secrets


def adapted(folder: Path, port: int, one: Replica, two: Replica) -> str:
    """`deploy/nginx.conf` for these ports; `resolve` is Docker's. It says whom it asked."""
    conf = (ROOT / "deploy" / "nginx.conf").read_text()
    for old, new in (
        (" resolve ", " "),
        ("router-1:8000", f"127.0.0.1:{one.port}"),
        ("router-2:8000", f"127.0.0.1:{two.port}"),
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
