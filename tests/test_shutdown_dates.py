"""Shutdown dates are read from the upstream's model list in every format, by name and by snapshot."""

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


@pytest.mark.parametrize("dates", ["2027-03-01", "2027-03-01T12:00:00Z", 1_803_900_000, 1_803_900_000.5])
@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4o-2024-08-06"])
def test_calibration_reads_shutdown_dates_in_every_form_and_of_snapshots(openai_server, dates, name):
    openai_server.models = json_reply({"object": "list", "data": [row(name, dates), row("gpt-4o-mini", None)]})
    endpoint = Endpoint(openai_server.url, "sk-x")
    shutdowns = find_shutdowns({"gpt-4o:low": endpoint, "gpt-4o-mini": endpoint})
    assert [(shutdown.model, shutdown.day, shutdown.source == SOURCE) for shutdown in shutdowns] == [
        ("gpt-4o:low", DAY, True),
        ("gpt-4o-mini", date(2027, 1, 14), False),
    ]


@pytest.mark.parametrize("dates", [True, 0, "", [], {}, float("nan"), 1e300, "2027-13-01"])
def test_invalid_shutdown_dates_are_ignored(dates):
    assert read_shutdown_days({"data": [row("gpt-4o", dates)]}, ["gpt-4o"], {}) == {}


@pytest.mark.parametrize("order", [1, -1])
def test_a_models_own_shutdown_date_overrides_that_of_its_snapshot(order):
    rows = [row("gpt-4o", "2027-03-01"), row("gpt-4o-2024-08-06", "2027-01-14")][::order]
    shutdowns = read_shutdown_days({"data": rows}, ["gpt-4o:low", "gpt-4o"], {"gpt-4o-2024-08-06": "gpt-4o"})
    assert shutdowns == {"gpt-4o:low": DAY, "gpt-4o": DAY}
