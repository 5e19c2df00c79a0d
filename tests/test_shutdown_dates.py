"""Shutdown dates are read from the upstream's list of models in every form, by name and by snapshot."""

from datetime import date

import pytest
from fake_openai import json_reply

from calibration.answers.answers import Endpoint
from calibration.retirement.shutdown_dates import find_shutdowns
from router.policy.shutdown import read_shutdown_days

SOURCE = "its upstream's model list"
DAY = date(2027, 3, 1)


def row(name, day):
    return {"id": name, "object": "model", "created": 1, "owned_by": "x", "shutdown_date": day}


@pytest.mark.parametrize("told", ["2027-03-01", "2027-03-01T12:00:00Z", 1_803_900_000, 1_803_900_000.5])
@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4o-2024-08-06"])
def test_calibration_reads_shutdown_dates_in_every_form_and_of_snapshots(openai_server, told, name):
    openai_server.models = json_reply({"object": "list", "data": [row(name, told), row("gpt-4o-mini", None)]})
    endpoint = Endpoint(openai_server.url, "sk-x")
    found = find_shutdowns({"gpt-4o:low": endpoint, "gpt-4o-mini": endpoint})
    assert [(each.model, each.day, each.source == SOURCE) for each in found] == [
        ("gpt-4o:low", DAY, True),
        ("gpt-4o-mini", date(2027, 1, 14), False),
    ]


@pytest.mark.parametrize("told", [True, 0, "", [], {}, float("nan"), 1e300, "2027-13-01"])
def test_invalid_shutdown_dates_are_ignored(told):
    assert read_shutdown_days({"data": [row("gpt-4o", told)]}, ["gpt-4o"], {}) == {}


@pytest.mark.parametrize("order", [1, -1])
def test_a_models_own_shutdown_date_overrides_that_of_its_snapshot(order):
    rows = [row("gpt-4o", "2027-03-01"), row("gpt-4o-2024-08-06", "2027-01-14")][::order]
    found = read_shutdown_days({"data": rows}, ["gpt-4o:low", "gpt-4o"], {"gpt-4o-2024-08-06": "gpt-4o"})
    assert found == {"gpt-4o:low": DAY, "gpt-4o": DAY}
