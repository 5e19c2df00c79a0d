"""A few inputs for each target of the fuzzer, and all that ever failed. `make fuzz` tries many more."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "fuzz"))
import run

COUNTS = {"clients": 25, "upstreams": 15, "policies": 25}  # of others 60


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", run.NAMES)
def test_no_input_of_a_few_and_none_that_once_failed_breaks_a_target(name):
    with run.opened(name) as target:
        for data in [*target.examples, *run.seeds(name)]:
            target.check(data)
        assert run.tried(target, COUNTS.get(name, 60), number=1) is None


def test_a_fault_is_found_and_its_input_is_told(monkeypatch):
    def check(data: bytes) -> None:
        assert b"NaN" not in data

    failing = run.tried(run.Target((b'{"a":1}',), check), 2000, number=1)
    assert failing is not None and b"NaN" in failing
