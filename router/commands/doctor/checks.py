"""Run all checks and print their findings."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from router.commands.doctor.finding import Finding, State
from router.commands.doctor.machine import client_keys, compiled, disk_free, home_writable, policy_and_prices
from router.commands.doctor.stores import database, mlflow_store, redis
from router.commands.doctor.upstreams import upstreams
from router.settings import CONFIG, SettingsError, load
from router.upstream.upstreams import Upstreams


def show() -> int:
    """Print a line for each check and return the exit code: 1 if there is a problem, else 0."""
    states = []
    for finding in findings():
        states.append(finding.state)
        sys.stdout.write(f"{finding}\n")
        sys.stdout.flush()
    sys.stdout.write(f"Problems: {states.count(State.PROBLEM)}. Warnings: {states.count(State.WARNING)}.\n")
    return int(State.PROBLEM in states)


def findings() -> Iterator[Finding]:
    """Run every check. Stop after the settings if they are invalid."""
    try:
        settings = load()
        known = Upstreams(settings)
    except SettingsError as error:
        yield Finding(State.PROBLEM, "settings", str(error), f"Correct {CONFIG} or the environment")
        return
    source = (
        f"{CONFIG} and the environment"
        if CONFIG.is_file()
        else f"the environment; {CONFIG} does not exist in this folder"
    )
    yield Finding(State.OK, "settings", f"read from {source}")
    yield from upstreams(settings, known)
    yield from policy_and_prices(settings)
    yield compiled()
    yield home_writable(settings.home)
    yield disk_free(settings.home)
    yield client_keys(settings)
    yield mlflow_store(settings.tracking_uri, known.network)
    yield database("usage database", settings.usage_url, "ROUTER_USAGE_DATABASE")
    if settings.state is not None:
        shared = {"ROUTER_USAGE_DATABASE": settings.usage_database, "ROUTER_KEYS_FILE": settings.keys_file}
        unshared = [name for name, value in shared.items() if value is None]
        yield redis(settings.state.get_secret_value(), settings.network, unshared)
