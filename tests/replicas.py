"""Two replicas as in `deploy/`, on loopback: nginx, two routers, MLflow on PostgreSQL, and an OpenAI that bills."""

from __future__ import annotations

import asyncio
import contextlib
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
from fake_openai import FakeOpenAI, Received, Say, chat_events, completion, events, json_answer
from fault_proxy import FaultProxy
from servers import MlflowServer, folder_for_everybody, free_port, is_listening, postgresql

ROOT = Path(__file__).parent.parent
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
            return events(*pieces, gap=self._chance.uniform(0.01, 0.08))
        answer = json_answer({**completion(bill.model), "usage": usage})
        answer.wait = self._chance.uniform(0.02, 0.3)
        return answer

    def _bill(self, request: Received) -> Billed:
        asked = request.json
        chance = random.Random(asked["user"])
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


@dataclass
class Load:
    """Clients behind nginx: half of the requests are streams."""

    origin: str
    asked: list[Asked] = field(default_factory=list)
    done: int = 0

    async def run(self, requests: int, clients: int) -> None:
        """Ask so many by so many at once."""
        numbers = iter(range(requests))

        async def client() -> None:
            for number in numbers:
                await self._ask(session, stream=number % 2 == 0)

        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(self.origin, timeout=timeout) as session:
            await asyncio.gather(*(client() for _ in range(clients)))

    async def _ask(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        asked = Asked(f"u-{os.urandom(6).hex()}")
        self.asked.append(asked)
        question = random.choice(QUESTIONS).format(number=random.randint(2, 999))
        body = {"model": "auto", "messages": [{"role": "user", "content": question}], "user": asked.user}
        try:
            async with session.post("/v1/chat/completions", json={**body, "stream": stream}) as response:
                asked.status = response.status
                asked.port = int(response.headers["x-upstream"].rpartition(":")[2])
                asked.policy = response.headers.get("x-router-policy", "")
                content = await response.read()
            asked.whole = asked.status == 200 and (not stream or content.rstrip().endswith(b"[DONE]"))
        except (aiohttp.ClientError, TimeoutError):
            pass
        finally:
            self.done += 1

    def failed(self) -> list[Asked]:
        return [asked for asked in self.asked if not asked.whole]


class Replica:
    """`python -m router serve` with a home of its own."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        self.home, self.port = folder / name, free_port()
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

    def bill(self) -> dict[str, Any]:
        return httpx2.get(self.origin + "/router/usage", timeout=30).raise_for_status().json()["total"]


@dataclass
class Deployment:
    """All of it."""

    openai: BillingOpenAI
    replicas: tuple[Replica, Replica]
    mlflow: MlflowServer
    way_to_mlflow: FaultProxy
    origin: str  # nginx
    database: str

    def load(self) -> Load:
        return Load(self.origin)

    def rows(self) -> dict[str, Billed]:
        """The usage tables: what each user's request was counted as."""
        select = "select user_name, model, input_tokens, cached_input_tokens, output_tokens from router_requests"
        found = self._select("usage", select)
        rows = {row[0]: Billed(*row[1:]) for row in found}
        assert len(found) == len(rows), [row for row in found if sum(row[0] == other[0] for other in found) > 1]
        return rows

    def traces(self) -> dict[str, tuple[int, int, int]]:
        """MLflow: tokens and root spans of each user's trace."""
        named = dict(self._select("usage", "select trace_id, user_name from router_requests"))
        found = self._select(
            "mlflow",
            "select request_id, input_tokens, output_tokens,"
            " (select count(*) from spans where trace_id = request_id and parent_span_id is null) from trace_info",
        )
        return {named.get(row[0].removeprefix("tr-"), row[0]): row[1:] for row in found}

    def _select(self, name: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(f"{self.database}/{name}") as connection:
            return connection.execute(query).fetchall()

    def agree(self, lost: set[str]) -> None:
        """Wait until all has arrived, and compare: the OpenAI, the usage tables, MLflow, and both bills."""
        until(self.openai.is_quiet, "the OpenAI still answers")
        billed = {user: bill for user, bill in self.openai.billed.items() if user not in lost}
        with contextlib.suppress(AssertionError):  # what is missing is told by what follows
            until(lambda: len(self.rows()) >= len(billed) <= len(self.traces()), "not all has arrived", 40)
        rows = self.rows()
        assert rows == billed, (set(rows) ^ set(billed), len(rows), len(billed), set(self.traces()) ^ set(billed))
        assert self.traces() == {user: (b.input_tokens, b.output_tokens, 1) for user, b in billed.items()}
        for replica in self.replicas:
            bill = replica.bill()
            counts = {name: bill[name] for name in ("requests", "answered", "unknown_cost_requests")}
            assert counts == {"requests": len(billed), "answered": len(billed), "unknown_cost_requests": 0}, bill
            assert abs(Decimal(bill["cost_usd"]) - self.openai.sum_usd(without=lost)) < Decimal("1e-6"), bill
        with contextlib.suppress(KeyError), Path(os.environ["REPLICAS_REPORT"]).open("a") as report:
            report.write(f"{len(billed)} requests, ${self.openai.sum_usd(without=lost):.6f} in all; {len(lost)} lost\n")


def until(condition: Callable[[], bool], why: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, why
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
        settings = {
            "OPENAI_API_KEY": "sk-of-the-tests",
            "OPENAI_BASE_URL": openai.url,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{between.port}",
            "ROUTER_USAGE_DATABASE": f"{url}/usage",
        }
        replicas = Replica("one", folder, settings), Replica("two", folder, settings)
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
        yield Deployment(openai, replicas, mlflow, between, f"http://127.0.0.1:{port}", database)
        for log in sorted(folder.glob("*.log")):  # shown where a test fails
            sys.stdout.write(f"--- {log.name}\n{log.read_text()[-6000:]}\n")


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
