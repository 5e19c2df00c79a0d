"""An hour of simulated requests in the home of a router, for the pictures of its page."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import openai

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from running import RunningRouter

from calibration.policies import read_policy
from router.exporter.shipping import drain, shippers_for
from router.journal.writer import Journal, Record
from router.policy.distribution import DATA, SHIPPED
from router.settings import load

HOUR_NS = 3600 * 10**9
MODELS = ("auto",) * 10 + ("auto-cost", "auto-quality", "gpt-4o")
REQUESTS = 600


def simulate_hour(home: Path, seed: int = 7) -> None:
    """Fill `home` with requests of the last hour.

    A router with simulated answers receives real requests within a minute. Their records are kept as they are, except
    that the times are spread over an hour.
    """
    chance = random.Random(seed)  # noqa: S311  not for secrets
    with TemporaryDirectory() as first_home:
        router = RunningRouter(Path(first_home))
        try:
            _send(router.url, chance)
            records = [msgspec.convert(record, Record) for record in router.records(REQUESTS)]
        finally:
            router.close()
    journal = Journal(home / "journal")
    for record in _spread(records, chance):
        journal.append(record)
    journal.close()
    shippers, _ = shippers_for(load(home=home))
    drain([shipper for shipper in shippers if shipper.name == "tallies"])


def _send(url: str, chance: random.Random) -> None:
    """Send the requests: most are answered, some are invalid, and some clients disconnect during the answer."""
    with openai.OpenAI(base_url=url, api_key="simulated", max_retries=0) as client:
        for body in _bodies(chance):
            try:
                answer = client.chat.completions.create(**body)
                if body.get("stream"):
                    leaves = chance.random() < 0.05
                    for number, _ in enumerate(answer):
                        if leaves and number > 10:
                            answer.close()
                            break
            except openai.APIStatusError as error:
                if error.status_code != 400:
                    raise


def _bodies(chance: random.Random) -> list[dict[str, Any]]:
    """Request bodies with questions of this repository, three of four of types that the policy has measured."""
    evidence = read_policy(SHIPPED).rules.evidence
    files = [DATA / "questions.jsonl", *sorted((DATA / "requests").glob("*.jsonl"))]
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    kinds = [evidence[row["question_type"]].kind if row["question_type"] in evidence else "none" for row in rows]
    measured = kinds.count("measured")
    weights = [0.75 / measured if kind == "measured" else 0.25 / (len(rows) - measured) for kind in kinds]
    bodies: list[dict[str, Any]] = []
    for row in chance.choices(rows, weights, k=REQUESTS):
        messages = row.get("messages") or [{"role": "user", "content": row.get("question") or row["text"]}]
        body = {"model": chance.choice(MODELS), "messages": messages, "stream": chance.random() < 0.1}
        if chance.random() < 0.01:
            body["messages"] = [{"role": "user", "content": 7}]
        bodies.append(body | ({"tools": row["tools"]} if row.get("tools") else {}))
    return bodies


def _spread(records: Sequence[Record], chance: random.Random) -> list[Record]:
    """The records with their times spread over the last hour, unevenly, as traffic is."""
    weights = [2 + math.sin(minute / 6) + chance.random() for minute in range(58)]
    minutes = sorted(chance.choices(range(58), weights, k=len(records)))
    begin = time.time_ns() - HOUR_NS + 10**9
    moved = []
    for record, minute in zip(records, minutes, strict=True):
        shift = begin + int((minute + chance.random()) * 60e9) - record.started_unix_ns
        first_byte = record.first_byte_unix_ns
        moved.append(
            msgspec.structs.replace(
                record,
                started_unix_ns=record.started_unix_ns + shift,
                first_byte_unix_ns=None if first_byte is None else first_byte + shift,
                ended_unix_ns=record.ended_unix_ns + shift,
            )
        )
    return sorted(moved, key=lambda record: record.ended_unix_ns)
