"""A rejected entry never blocks a sink: it is set aside, reported and can be exported again. An outage only waits."""

import json
import os
import time

import httpx2
import pytest
import sqlalchemy as sa
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException
from synthetic_records import make_record
from test_exporter import settings, stored_traces, write_records  # noqa: F401  a fixture

from router.exporter.assessments import Assessments
from router.exporter.feedback import FeedbackError, read_feedback
from router.exporter.shipper import Shipper
from router.exporter.shipping import drain, retry_refused
from router.exporter.tracestore import TraceStore
from router.journal.refused import FILE, RefusedError, counted, park, parked
from router.journal.writer import Feedback
from router.serving.policy import prices
from router.usage import ledger as tables
from router.usage.ledger import Ledger
from router.usage.tallies import Tallies, reading

BAD_IDS = ("0" * 31 + "\n", "z" * 32, "12", "")


def shipped(shipper):
    while shipper.step():
        pass


class Picky:
    """A sink that rejects the entries in `bad`."""

    batch = 50

    def __init__(self, bad, error=RefusedError):
        self.bad, self.error, self.kept = bad, error, {}

    def write(self, entries):
        if any(entry.trace_id in self.bad for entry in entries):
            raise self.error("it does not fit")
        self.kept.update({entry.trace_id: entry for entry in entries})


def test_rejected_entries_are_parked_and_all_others_are_exported(settings):  # noqa: F811
    records = [make_record(number) for number in range(40)]
    write_records(settings, *records)
    directory, bad = settings.home / "journal", {records[3].trace_id, records[4].trace_id, records[39].trace_id}
    shipper = Shipper(directory, "mlflow", Picky(bad))
    shipped(shipper)
    assert set(shipper._sink.kept) == {record.trace_id for record in records} - bad
    assert {entry.entry.trace_id for entry in parked(directory)} == bad
    assert (directory / FILE).stat().st_mode & 0o777 == 0o600
    shipper._sink.bad = {records[4].trace_id}
    assert retry_refused(directory, {"mlflow": shipper.retry}) == 1
    assert set(shipper._sink.kept) == {record.trace_id for record in records} - shipper._sink.bad
    assert [entry.entry.trace_id for entry in parked(directory)] == [records[4].trace_id]


def test_entries_rejected_by_an_unknown_sink_stay_parked(settings):  # noqa: F811
    directory = settings.home / "journal"
    directory.mkdir(parents=True)
    park(directory, "elsewhere", make_record(1), "it does not fit")
    assert retry_refused(directory, {"mlflow": lambda entry: None}) == 1
    assert [(parked_entry.sink, parked_entry.error) for parked_entry in parked(directory)] == [
        ("elsewhere", "it does not fit")
    ]


def test_other_work_of_a_sink_delays_no_entry(settings):  # noqa: F811
    records = [make_record(number) for number in range(200)]
    write_records(settings, *records)
    calls = []

    def fails():
        calls.append(1)
        raise OSError("MLflow is away")

    sink = Picky(set())
    shipper = Shipper(settings.home / "journal", "mlflow", sink, fails)
    start = time.monotonic()
    shipped(shipper)
    assert set(sink.kept) == {record.trace_id for record in records}
    assert len(calls) == 1 and time.monotonic() - start < 5  # it waits before it retries
    with pytest.raises(OSError, match="MLflow is away"):
        drain([shipper])


class Strict:
    """MLflow's store, which rejects rationales over `most` characters, like the database of a server may."""

    def __init__(self, store):
        self.most, self.get_trace_info, self._create = 20, store.get_trace_info, store.create_assessment

    def create_assessment(self, assessment):
        if len(assessment.rationale) > self.most:
            raise MlflowException("the rationale is too long", INVALID_PARAMETER_VALUE)
        return self._create(assessment)


def test_feedback_that_mlflow_rejects_is_parked_and_the_rest_is_exported(settings):  # noqa: F811
    record, directory = make_record(1), settings.home / "journal"
    comments = {"a" * 32: "good", "b" * 32: "much too long for it", "c" * 32: "also"}
    comments["b" * 32] *= 2
    feedback_entries = [
        Feedback(feedback_id=name, trace_id=record.trace_id, unix_ns=time.time_ns(), score=1.0, comment=comment)
        for name, comment in comments.items()
    ]
    write_records(settings, record)
    store = TraceStore(settings, prices(settings))
    shipped(Shipper(directory, "mlflow", store))
    strict, states = Strict(store.ready()), {}
    store.ready = lambda: strict
    assessments = Assessments(
        store,
        lambda: [entry for entry in feedback_entries if entry.feedback_id not in states],
        lambda ids, state: states.update(dict.fromkeys(ids, state)),
        lambda feedback, why: park(directory, "feedback", feedback, why),
    )
    assessments.post()
    assert states == {"a" * 32: "assessed", "b" * 32: "refused", "c" * 32: "assessed"}
    assert counted(directory) == {"feedback": 1}
    retries = {"feedback": assessments.retry}
    assert retry_refused(directory, retries) == 1
    strict.most = 100
    assert retry_refused(directory, retries) == 0 and states["b" * 32] == "assessed"
    [trace] = stored_traces(settings)
    assert {entry.rationale for entry in trace.info.assessments} == set(comments.values())


@pytest.mark.parametrize("cut", [1, 20])
def test_a_split_batch_is_counted_once_if_it_is_written_again(settings, cut):  # noqa: F811
    records = [make_record(number) for number in range(40)]
    tallies = Tallies(settings.home / "tallies.db", prices(settings), lambda _: None)
    for _ in range(2):  # the exporter ended before it stored its position
        tallies.write(records[:cut])
        tallies.write(records[cut:])
    with reading(settings.home / "tallies.db") as store:
        assert store.execute("SELECT sum(requests) FROM days").fetchone()[0] == 40


def test_an_outage_parks_no_entry(settings):  # noqa: F811
    record = make_record(1)
    write_records(settings, record)
    shipper = Shipper(settings.home / "journal", "mlflow", Picky({record.trace_id}, OSError))
    for _ in range(3):
        assert not shipper._try_step()
    assert not (settings.home / "journal" / FILE).exists() and shipper.progress.failures == 3


@pytest.mark.parametrize("trace_id", BAD_IDS, ids=repr)
def test_an_invalid_trace_id_stops_no_other_trace(settings, trace_id):  # noqa: F811
    good = [make_record(1), make_record(2)]
    write_records(settings, good[0], make_record(3, trace_id=trace_id), good[1])
    shipped(Shipper(settings.home / "journal", "mlflow", TraceStore(settings, prices(settings))))
    traces = {trace.info.trace_id.removeprefix("tr-") for trace in stored_traces(settings)}
    assert {record.trace_id for record in good} <= traces
    put_aside = [entry.entry.trace_id for entry in parked(settings.home / "journal")]
    assert put_aside in ([trace_id], []) and len(traces) + len(put_aside) >= 3


def test_a_number_too_large_for_the_database_does_not_stop_the_export(settings):  # noqa: F811
    good = [make_record(1), make_record(2)]
    write_records(settings, good[0], make_record(3, started_unix_ns=10**30), good[1])
    ledger = Ledger(settings.usage_url, prices(settings), lambda _: None)
    shipped(Shipper(settings.home / "journal", "usage", ledger))
    with ledger.engine.connect() as connection:
        stored_ids = {row[0] for row in connection.execute(sa.select(tables.requests.c.trace_id))}
    assert stored_ids == {record.trace_id for record in good}
    assert [entry.sink for entry in parked(settings.home / "journal")] == ["usage"]


def test_feedback_with_a_line_break_in_its_id_is_rejected():
    for trace_id in ("0" * 32 + "\n", "tr-" + "0" * 32 + "\n"):
        with pytest.raises(FeedbackError, match="32 hexadecimal"):
            read_feedback(json.dumps({"trace_id": trace_id, "thumbs": "up"}).encode())
    assert isinstance(read_feedback(json.dumps({"trace_id": "tr-" + "a" * 32, "score": 1}).encode()), Feedback)


def test_damaged_journal_files_cause_no_error_in_readiness_and_metrics(router):
    directory = router.app.worker.journal.directory
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
    os.mkdir(directory / "7-folder.jsonl")  # noqa: PTH102
    start = time.monotonic()
    for path in ("/ready", "/metrics"):
        assert httpx2.get(router.origin + path).status_code == 200, path
    assert set(httpx2.get(router.origin + "/ready").json()["exporter"]) >= {"mlflow", "usage", "tallies"}
    assert time.monotonic() - start < 10


def test_parked_entries_are_shown_on_the_page_and_in_readiness(router):
    park(router.app.worker.journal.directory, "mlflow", make_record(1), "it does not fit")
    ready = httpx2.get(router.origin + "/ready").json()
    assert ready["refused"] == {"mlflow": 1}
    for text in (
        ready,
        httpx2.get(router.origin + "/health").json(),
        httpx2.get(router.origin + "/router/overview").json(),
    ):
        assert any("MLflow refused 1 entries" in warning for warning in text["warnings"])


def test_damaged_sums_return_503_with_a_reason(router):
    (router.home / "tallies.db").write_bytes(b"no database at all" * 1000)
    answer = httpx2.get(router.origin + "/router/overview")
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "store_unreadable"
    assert httpx2.get(router.origin + "/metrics").status_code == 200


@pytest.mark.parametrize("damaged", [lambda end: end + 10**6, lambda end: end - 3, lambda end: -5, lambda end: 2**70])
def test_an_offset_within_a_line_loses_no_entry(settings, damaged):  # noqa: F811
    records = [make_record(number) for number in range(9)]
    write_records(settings, *records[:4])
    directory = settings.home / "journal"
    sink = Picky(set())
    shipped(Shipper(directory, "mlflow", sink))
    cursor = directory / "mlflow.cursor"
    offsets = json.loads(cursor.read_bytes())
    cursor.write_text(json.dumps({name: damaged(end) for name, end in offsets.items()}))
    write_records(settings, *records[4:])
    sink = Picky(set())
    shipped(Shipper(directory, "mlflow", sink))
    assert {record.trace_id for record in records[4:]} <= set(sink.kept)
