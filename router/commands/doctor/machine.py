"""What is on this machine: the policy, the prices, the home folder and its disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from router.client.keywatch import served_keys
from router.commands.doctor.finding import Finding, State
from router.policy.document import PolicyError
from router.serving.policy import policy_folder, prices, read_policy
from router.settings import CONFIG, Settings, SettingsError

LEAST_FREE_BYTES = 10**9


def policy_and_prices(settings: Settings) -> Iterator[Finding]:
    """The policy that would be served, and the price of each of its models."""
    try:
        folder = policy_folder(settings)
    except SettingsError as error:
        yield Finding(State.PROBLEM, "policy", str(error), f"Correct ROUTER_PAIR, or the prices in {CONFIG}")
        return
    try:
        policy = read_policy(folder)
    except PolicyError as error:
        if settings.policy is None and folder == settings.home / "policy":
            remedy = "The shipped policy serves instead. Promote another, or run `python -m calibration rollback`"
            yield Finding(State.WARNING, "policy", str(error), remedy)
        else:
            yield Finding(State.PROBLEM, "policy", str(error), "Set ROUTER_POLICY to the folder of a policy")
        return
    names = [model.name for model in policy.rules.models]
    yield Finding(State.OK, "policy", f"version {policy.version} chooses between {', '.join(names)}")
    yield priced(settings, names)


def priced(settings: Settings, names: Sequence[str]) -> Finding:
    """Whether the cost of these models' answers will be known."""
    try:
        book = prices(settings)
    except SettingsError as error:
        return Finding(State.PROBLEM, "prices", str(error), f"Correct the prices in {CONFIG}")
    missing = [name for name in names if book.price(name) is None]
    if missing:
        told = f"unknown for {', '.join(missing)}, so the cost of its answers is unknown"
        return Finding(State.WARNING, "prices", told, f'Add them to {CONFIG}: [models."{missing[0]}"]')
    return Finding(State.OK, "prices", f"known for all models of the policy, as of {book.as_of}")


def home_writable(home: Path) -> Finding:
    """Whether the home folder, or the one that it will be made in, can be written to."""
    folder = _existing(home)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        told = f"{folder.absolute()} cannot be written to: {error.strerror}"
        return Finding(State.PROBLEM, "home folder", told, "Give its owner the right, or set ROUTER_HOME")
    found = "is writable" if folder == home else "is made by the first start"
    return Finding(State.OK, "home folder", f"{home.absolute()} {found}")


def disk_free(home: Path, least_bytes: int = LEAST_FREE_BYTES) -> Finding:
    """Whether there are `least_bytes` for what is recorded."""
    try:
        free = shutil.disk_usage(_existing(home)).free
    except OSError as error:
        return Finding(State.WARNING, "disk", f"free space is unknown: {error.strerror}")
    told = f"{free / 1e9:,.1f} GB free for the home folder"
    if free < least_bytes:
        return Finding(State.WARNING, "disk", told, "Free some, or set ROUTER_HOME: a full disk ends the recording")
    return Finding(State.OK, "disk", told)


def client_keys(settings: Settings) -> Finding:
    """Whether the keys that clients present can be read, and how many are in use."""
    try:
        named = served_keys(settings)
    except SettingsError as error:
        return Finding(State.PROBLEM, "client keys", str(error), "Restore the file, or make the keys anew")
    states = [key.state(time.time()) for key in named.keys]
    if not states and not settings.api_keys:
        told = "none, so only this machine may ask"
    else:
        told = (
            f"{states.count('active')} of {len(states)} named keys are active, {len(settings.api_keys)} in the settings"
        )
    return Finding(State.OK, "client keys", told)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((each for each in (folder, *folder.parents) if each.exists()), Path())
