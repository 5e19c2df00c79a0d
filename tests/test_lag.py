import time

from synthetic_records import make_record

from router.exporter.shipper import Shipper
from router.journal.lag import lags
from router.journal.writer import Journal


class Sink:
    batch = 10

    def __init__(self) -> None:
        self.works = False
        self.kept: list = []

    def write(self, entries) -> None:
        if not self.works:
            raise ConnectionError("down")
        self.kept += entries


def test_lag_is_reported_until_the_sink_recovers(tmp_path):
    journal = Journal(tmp_path)
    now = time.time_ns()
    for number in range(25):
        journal.append(make_record(number, ended_unix_ns=now - 60 * 10**9))
    sink = Sink()
    shipper = Shipper(tmp_path, "sink", sink)
    assert not shipper._try_step()
    assert not shipper._try_step()
    lag = lags(tmp_path)["sink"]
    assert lag.behind_bytes > 5000
    assert 60 <= lag.behind_seconds < 90
    assert lag.failures == 2
    sink.works = True
    while shipper._try_step():
        pass
    lag = lags(tmp_path)["sink"]
    assert (lag.behind_bytes, lag.behind_seconds, lag.failures) == (0, 0.0, 0)
    assert len(sink.kept) == 25
    journal.close()


def test_an_incomplete_record_of_a_killed_writer_is_not_lag(tmp_path):
    journal = Journal(tmp_path)
    journal.append(make_record(1))
    shipper = Shipper(tmp_path, "sink", sink := Sink())
    sink.works = True
    shipper._try_step()
    (segment,) = tmp_path.glob("*.jsonl")
    with segment.open("ab") as file:
        file.write(b'{"kind":"request","trace')
    assert lags(tmp_path)["sink"].behind_bytes == 24  # its writer is alive and may complete the line
    journal.close()
    assert lags(tmp_path)["sink"].behind_bytes == 0


def test_readiness_reports_the_lag_of_the_exporter_and_stays_ready(router):
    import json
    import urllib.request

    Journal(router.home / "journal").close()
    shipper = Shipper(router.home / "journal", "mlflow", Sink())
    router.app.worker.journal.append(make_record(1))
    shipper._try_step()
    with urllib.request.urlopen(router.origin + "/ready") as response:
        answer = json.loads(response.read())
    assert answer["status"] == "ready"
    assert answer["exporter"]["mlflow"]["failures"] == 1
    assert answer["exporter"]["mlflow"]["behind_bytes"] > 0
