"""One bad entry never stops a sink: it is put aside, told, and can be shipped again. An outage puts nothing aside."""

import json
import os
import time

import httpx2
import pytest
import sqlalchemy as sa
from made_records import made_record
from test_exporter import settings, stored, written  # noqa: F401  a fixture

from router.exporter.feedback import FeedbackError, read_feedback
from router.exporter.shipping import Shipper, again
from router.exporter.tracestore import TraceStore
from router.journal.refused import FILE, RefusedError, parked
from router.journal.writer import Feedback
from router.serving import prices
from router.usage import ledger as tables
from router.usage.ledger import Ledger

BAD_IDS = ("0" * 31 + "\n", "z" * 32, "12", "")


def shipped(shipper):
    while shipper.step():
        pass


class Picky:
    """A sink that takes no entry of `bad`."""

    batch = 50

    def __init__(self, bad, error=RefusedError):
        self.bad, self.error, self.kept = bad, error, {}

    def write(self, entries):
        if any(entry.trace_id in self.bad for entry in entries):
            raise self.error("it does not fit")
        self.kept.update({entry.trace_id: entry for entry in entries})


def test_what_is_refused_is_put_aside_and_all_others_go_on(settings):  # noqa: F811
    records = [made_record(number) for number in range(40)]
    written(settings, *records)
    directory, bad = settings.home / "journal", {records[3].trace_id, records[4].trace_id, records[39].trace_id}
    shipper = Shipper(directory, "mlflow", Picky(bad))
    shipped(shipper)
    assert set(shipper._sink.kept) == {record.trace_id for record in records} - bad
    assert {each.entry.trace_id for each in parked(directory)} == bad
    assert (directory / FILE).stat().st_mode & 0o777 == 0o600
    shipper._sink.bad = {records[4].trace_id}
    assert again(directory, [shipper]) == 1
    assert set(shipper._sink.kept) == {record.trace_id for record in records} - shipper._sink.bad
    assert [each.entry.trace_id for each in parked(directory)] == [records[4].trace_id]


def test_an_outage_puts_nothing_aside(settings):  # noqa: F811
    record = made_record(1)
    written(settings, record)
    shipper = Shipper(settings.home / "journal", "mlflow", Picky({record.trace_id}, OSError))
    for _ in range(3):
        assert not shipper._tried()
    assert not (settings.home / "journal" / FILE).exists() and shipper.progress.failures == 3


@pytest.mark.parametrize("trace_id", BAD_IDS, ids=repr)
def test_a_broken_trace_id_stops_no_trace(settings, trace_id):  # noqa: F811
    good = [made_record(1), made_record(2)]
    written(settings, good[0], made_record(3, trace_id=trace_id), good[1])
    shipped(Shipper(settings.home / "journal", "mlflow", TraceStore(settings, prices(settings))))
    traces = {trace.info.trace_id.removeprefix("tr-") for trace in stored(settings)}
    assert {record.trace_id for record in good} <= traces
    put_aside = [each.entry.trace_id for each in parked(settings.home / "journal")]
    assert put_aside in ([trace_id], []) and len(traces) + len(put_aside) >= 3


def test_a_number_beyond_any_table_stops_no_bill(settings):  # noqa: F811
    good = [made_record(1), made_record(2)]
    written(settings, good[0], made_record(3, started_unix_ns=10**30), good[1])
    ledger = Ledger(settings.usage_url, prices(settings), lambda _: None)
    shipped(Shipper(settings.home / "journal", "usage", ledger))
    with ledger.engine.connect() as connection:
        kept = {row[0] for row in connection.execute(sa.select(tables.requests.c.trace_id))}
    assert kept == {record.trace_id for record in good}
    assert [each.sink for each in parked(settings.home / "journal")] == ["usage"]


def test_feedback_whose_id_ends_in_a_line_is_refused():
    for trace_id in ("0" * 32 + "\n", "tr-" + "0" * 32 + "\n"):
        with pytest.raises(FeedbackError, match="32 hexadecimal"):
            read_feedback(json.dumps({"trace_id": trace_id, "thumbs": "up"}).encode())
    assert isinstance(read_feedback(json.dumps({"trace_id": "tr-" + "a" * 32, "score": 1}).encode()), Feedback)


def test_damage_in_the_journal_s_folder_makes_no_error_of_readiness_or_metrics(router):
    directory = router.app.router.journal.directory
    damage = {
        "mlflow.cursor": b"\xff\xfe{",
        "usage.cursor": b'{"1-a.jsonl": -5}',
        "mlflow.progress": b"\xff",
        "usage.progress": b'{"failures": "many"}',
        "tallies.progress": b"[]",
        "notes.jsonl": b"{}\n",
        "a-b.jsonl": b"{}\n",
        FILE: b"\xff\n",
    }
    for name, content in damage.items():
        (directory / name).write_bytes(content)
    os.mkdir(directory / "odd.progress")  # noqa: PTH102
    began = time.monotonic()
    for path in ("/ready", "/metrics"):
        assert httpx2.get(router.origin + path).status_code == 200, path
    assert set(httpx2.get(router.origin + "/ready").json()["exporter"]) >= {"mlflow", "usage", "tallies"}
    assert time.monotonic() - began < 10
