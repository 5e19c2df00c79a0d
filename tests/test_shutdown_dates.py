"""Shutdown dates are read from the model list of an upstream, in every form, by name and by snapshot."""

from datetime import date

import pytest
from fake_openai import json_answer

from calibration.answers.answers import Endpoint
from calibration.retirement.shutdown_dates import find_shutdowns
from router.policy.shutdown import listed_days

SOURCE = "its upstream's model list"
DAY = date(2027, 3, 1)


def row(name, day):
    return {"id": name, "object": "model", "created": 1, "owned_by": "x", "shutdown_date": day}


@pytest.mark.parametrize("value", ["2027-03-01", "2027-03-01T12:00:00Z", 1_803_900_000, 1_803_900_000.5])
@pytest.mark.parametrize("name", ["gpt-4o", "gpt-4o-2024-08-06"])
def test_shutdown_dates_are_read_in_every_form_and_from_snapshots(openai_server, value, name):
    openai_server.models = json_answer({"object": "list", "data": [row(name, value), row("gpt-4o-mini", None)]})
    endpoint = Endpoint(openai_server.url, "sk-x")
    shutdowns = find_shutdowns({"gpt-4o:low": endpoint, "gpt-4o-mini": endpoint})
    assert [(shutdown.model, shutdown.day, shutdown.source == SOURCE) for shutdown in shutdowns] == [
        ("gpt-4o:low", DAY, True),
        ("gpt-4o-mini", date(2027, 1, 14), False),
    ]


@pytest.mark.parametrize("value", [True, 0, "", [], {}, float("nan"), 1e300, "2027-13-01"])
def test_an_invalid_date_is_ignored(value):
    assert listed_days({"data": [row("gpt-4o", value)]}, ["gpt-4o"], {}) == {}


@pytest.mark.parametrize("order", [1, -1])
def test_the_date_of_a_model_has_precedence_over_that_of_its_snapshot(order):
    rows = [row("gpt-4o", "2027-03-01"), row("gpt-4o-2024-08-06", "2027-01-14")][::order]
    found = listed_days({"data": rows}, ["gpt-4o:low", "gpt-4o"], {"gpt-4o-2024-08-06": "gpt-4o"})
    assert found == {"gpt-4o:low": DAY, "gpt-4o": DAY}
