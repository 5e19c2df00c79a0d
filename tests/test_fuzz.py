"""Parsers of foreign bytes get a few generated inputs and all that ever failed; `make fuzz` tries more."""

import pytest
from fuzz.run import fuzz, stored_inputs
from fuzz.targets import Target, openings
from hypothesis import strategies as st

INPUTS = {"clients": 20, "upstreams": 10}  # 50 of the other inputs


@pytest.mark.parametrize("name", openings())
def test_no_input_fails_a_target(name):
    with openings()[name]() as target:
        for path in stored_inputs(name):
            target.check(path.read_bytes())
        trial = fuzz(target, max_inputs=INPUTS.get(name, 50))
    assert trial.failing is None, trial.error
    assert trial.tried >= INPUTS.get(name, 50)


def test_a_fault_is_found_with_its_smallest_input():
    def check(data: bytes) -> None:
        assert b"\xff" not in data

    trial = fuzz(Target(check, st.binary()), max_inputs=5000)
    assert trial.failing == b"\xff" and "AssertionError" in trial.error


def test_the_same_seed_generates_the_same_inputs():
    heard: list[list[bytes]] = [[], []]
    for inputs in heard:
        fuzz(Target(inputs.append, st.binary()), max_inputs=30, first_seed=7)
    assert heard[0] == heard[1]
