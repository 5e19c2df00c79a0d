import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from synthetic_records import make_record

from router.journal.segments import Cursor, is_complete, listed, read, remove_finished
from router.journal.writer import MAX_RECORD_BYTES, Gap, Journal


def lines(directory: Path) -> list[dict]:
    return [json.loads(line) for segment in listed(directory) for line in segment.read_bytes().splitlines()]


def test_append_writes_the_record_to_disk(tmp_path):
    journal = Journal(tmp_path)
    assert journal.append(make_record(1))
    assert lines(tmp_path)[0]["trace_id"] == make_record(1).trace_id
    journal.close()


def test_an_indented_body_is_stored_as_equal_json_on_one_line(tmp_path):
    body = b'{\n  "messages": [\n {"content": "two\\nlines"}]\n}'
    journal = Journal(tmp_path)
    journal.append(make_record(1, request=msgspec.Raw(body)))
    journal.append(make_record(2))
    journal.close()
    assert [line.get("request") for line in lines(tmp_path)] == [json.loads(body), None]


def test_a_record_that_is_too_large_is_stored_without_content(tmp_path):
    journal = Journal(tmp_path)
    assert journal.append(make_record(1, request={"content": "x" * MAX_RECORD_BYTES}))
    assert "request" not in lines(tmp_path)[0]
    journal.close()


def test_a_record_that_cannot_be_encoded_raises_no_error(tmp_path):
    journal = Journal(tmp_path)
    assert journal.append(make_record(1, request=object()))
    assert "request" not in lines(tmp_path)[0]
    journal.close()


def test_segments_rotate_and_the_previous_one_is_complete(tmp_path):
    journal = Journal(tmp_path, segment_bytes=1000)
    for number in range(10):
        journal.append(make_record(number))
    segments = listed(tmp_path)
    assert len(segments) > 2
    assert [is_complete(segment) for segment in segments] == [True] * (len(segments) - 1) + [False]
    journal.close()
    assert is_complete(segments[-1])
    assert len(lines(tmp_path)) == 10


def test_a_full_disk_is_counted_and_reported_until_it_has_space(tmp_path, caplog):
    pid = os.fork()
    if not pid:  # a limit on file size acts like a full disk for one process
        os._exit(_write_beyond_a_limit(tmp_path))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    entries = lines(tmp_path)  # every line is complete
    gaps = [line for line in entries if line["kind"] == "gap"]
    assert len(gaps) == 1
    assert gaps[0]["requests"] + sum(line["kind"] == "request" for line in entries) == 21


def _write_beyond_a_limit(directory: Path) -> int:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = Journal(directory)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    stored = sum(journal.append(make_record(number)) for number in range(20))
    if stored == 20 or journal.unrecorded != 20 - stored:
        return 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return 0 if journal.append(make_record(20)) else 2


def test_a_full_disk_during_rotation_loses_no_record(tmp_path):
    (tmp_path / "journal").mkdir()
    pid = os.fork()
    if not pid:
        os._exit(_write_on_without_a_new_segment(tmp_path / "journal", tmp_path / "away"))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [line["trace_id"] for line in lines(tmp_path / "away")] == [make_record(n).trace_id for n in range(20)]


def _write_on_without_a_new_segment(directory: Path, moved_path: Path) -> int:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = Journal(directory, segment_bytes=5000)
    directory.rename(moved_path)  # no new segment can be created, while the open one still accepts records
    if not all(journal.append(make_record(number)) for number in range(20)):
        return 1
    size = listed(moved_path)[0].stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))  # space for half a record
    return 2 if size < 5000 or journal.append(make_record(20)) else 0


def test_a_reader_skips_an_incomplete_last_line(tmp_path):
    segment = tmp_path / "1-1-a.jsonl"
    segment.write_bytes(b'{"a":1}\n{"b":2}\n{"c"')
    assert read(segment, 0, 10) == ([b'{"a":1}', b'{"b":2}'], 16)
    assert read(segment, 0, 1) == ([b'{"a":1}'], 8)
    assert read(segment, 16, 10) == ([], 16)


def test_a_reader_resumes_at_its_position_and_skips_invalid_lines(tmp_path, caplog):
    journal = Journal(tmp_path)
    journal.append(make_record(1))
    with listed(tmp_path)[0].open("ab") as file:
        file.write(b"not json\n")
    journal.append(make_record(2))
    cursor = Cursor(tmp_path, "reader")
    segment, entries, end = cursor.batch(2)
    assert [entry.trace_id for entry in entries] == [make_record(1).trace_id]
    cursor.advance(segment, end)
    again = Cursor(tmp_path, "reader")
    assert again.batch(5)[1] == [make_record(2)]
    assert again.behind_bytes() > 0
    assert "skipped an unreadable line" in caplog.text
    journal.close()


def test_only_closed_segments_read_by_all_and_old_enough_are_removed(tmp_path):
    journal = Journal(tmp_path)
    journal.append(make_record(1))
    first, second = Cursor(tmp_path, "first"), Cursor(tmp_path, "second")
    segment, _, end = first.batch(5)
    first.advance(segment, end)
    journal.close()
    assert remove_finished(tmp_path, [first, second], 0.0) == []  # one reader has not read it
    second.advance(segment, end)
    assert remove_finished(tmp_path, [first, second], 60.0) == []  # too young
    other = Journal(tmp_path)
    assert remove_finished(tmp_path, [first, second], 0.0) == [segment]  # except the open segment
    assert len(listed(tmp_path)) == 1
    assert json.loads(first.path.read_bytes()) == {}
    other.close()


def test_reading_and_removing_use_the_same_cursor(tmp_path):
    cursor = Cursor(tmp_path, "reader")
    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(lambda: [cursor.advance(tmp_path / "2.jsonl", end) for end in range(2000)])
        tidying = threads.submit(lambda: [cursor.forget([tmp_path / "1.jsonl"]) for _ in range(2000)])
        reading.result(), tidying.result()
    assert json.loads(cursor.path.read_bytes()) == {"2.jsonl": 1999}


def test_a_killed_writer_loses_no_record(tmp_path):
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from synthetic_records import make_record
from router.journal.writer import Journal
journal = Journal(Path({str(tmp_path)!r}))
for number in range(10**9):
    journal.append(make_record(number))
    print(number, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    printed_lines = [process.stdout.readline() for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    printed_lines += process.stdout.read().splitlines()
    process.wait()
    process.stdout.close()
    *whole, _torn = (
        listed(tmp_path)[0].read_bytes().split(b"\n")
    )  # a process killed within a write leaves an incomplete line
    assert [json.loads(line)["trace_id"] for line in whole] == [make_record(n).trace_id for n in range(len(whole))]
    assert len(whole) >= len([number for number in printed_lines if number.strip()])
    assert is_complete(listed(tmp_path)[0])


def test_serving_a_request_imports_neither_mlflow_nor_opentelemetry():
    code = """
import sys
import router.app, router.exporter.process
sys.exit(any(name in sys.modules for name in ("mlflow", "opentelemetry.sdk", "opentelemetry.proto")))
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("entry", [Gap(since_unix_ns=1, until_unix_ns=2, requests=3), make_record(4)])
def test_an_entry_round_trips(tmp_path, entry):
    journal = Journal(tmp_path)
    journal.append(entry)
    assert Cursor(tmp_path, "reader").oldest() == entry
    journal.close()
