"""Checks of this machine: policy, prices, prediction, home folder, disk space and client keys."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from router.client.keywatch import served_keys
from router.commands.doctor.finding import Finding, State
from router.policy.document import PolicyError
from router.policy.prediction import IS_COMPILED
from router.serving.policy import policy_folder, prices, read_policy
from router.settings import CONFIG, Settings, SettingsError

LEAST_FREE_BYTES = 10**9


def policy_and_prices(settings: Settings) -> Iterator[Finding]:
    """Check the policy that `serve` would use, and the price of each of its models."""
    try:
        folder = policy_folder(settings)
    except SettingsError as error:
        yield Finding(State.PROBLEM, "policy", str(error), f"Correct ROUTER_PAIR, or the prices in {CONFIG}")
        return
    try:
        policy = read_policy(folder)
    except PolicyError as error:
        if settings.policy is None and folder == settings.home / "policy":
            remedy = (
                "The router serves the shipped policy. Promote another one, or run `python -m calibration rollback`"
            )
            yield Finding(State.WARNING, "policy", str(error), remedy)
        else:
            yield Finding(State.PROBLEM, "policy", str(error), "Set ROUTER_POLICY to the folder of a policy")
        return
    names = [model.name for model in policy.rules.models]
    yield Finding(State.OK, "policy", f"version {policy.version} chooses between {', '.join(names)}")
    yield priced(settings, names)


def priced(settings: Settings, names: Sequence[str]) -> Finding:
    """Check that each model has a price, so that the cost of its answers is known."""
    try:
        book = prices(settings)
    except SettingsError as error:
        return Finding(State.PROBLEM, "prices", str(error), f"Correct the prices in {CONFIG}")
    missing = [name for name in names if book.price(name) is None]
    if missing:
        message = f"unknown for {', '.join(missing)}, so the cost of their answers is unknown"
        return Finding(State.WARNING, "prices", message, f'Add them to {CONFIG}: [models."{missing[0]}"]')
    return Finding(State.OK, "prices", f"known for all models of the policy, as of {book.as_of}")


def compiled() -> Finding:
    """Check that the prediction is compiled. Without it, a decision costs more and is the same."""
    if IS_COMPILED:
        return Finding(State.OK, "prediction", "compiled")
    message = "not compiled, so a decision takes about twice as long"
    return Finding(
        State.WARNING, "prediction", message, "Install a C compiler and Python's headers, then the router again"
    )


def home_writable(home: Path) -> Finding:
    """Check that the home folder, or the folder that will contain it, is writable."""
    folder = _existing(home)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"{folder.absolute()} is not writable: {error.strerror}"
        return Finding(State.PROBLEM, "home folder", message, "Grant write permission, or set ROUTER_HOME")
    state = "is writable" if folder == home else "is created at the first start"
    return Finding(State.OK, "home folder", f"{home.absolute()} {state}")


def disk_free(home: Path, least_bytes: int = LEAST_FREE_BYTES) -> Finding:
    """Check that the disk of the home folder has `least_bytes` free for records."""
    try:
        free = shutil.disk_usage(_existing(home)).free
    except OSError as error:
        return Finding(State.WARNING, "disk", f"free space is unknown: {error.strerror}")
    message = f"{free / 1e9:,.1f} GB free for the home folder"
    if free < least_bytes:
        return Finding(State.WARNING, "disk", message, "Free space, or set ROUTER_HOME: a full disk stops recording")
    return Finding(State.OK, "disk", message)


def client_keys(settings: Settings) -> Finding:
    """Check that the client keys can be read, and count the active ones."""
    try:
        named = served_keys(settings)
    except SettingsError as error:
        return Finding(State.PROBLEM, "client keys", str(error), "Restore the file, or create the keys again")
    if not settings.keys_path.parent.is_dir() and settings.keys_file is not None:
        message = f"the folder of ROUTER_KEYS_FILE does not exist: {settings.keys_path.parent}"
        return Finding(State.PROBLEM, "client keys", message, "Create it, mount it, or correct the setting")
    states = [key.state(time.time()) for key in named.keys]
    if not states and not settings.api_keys:
        message = "none, so only this machine may send requests"
    else:
        message = (
            f"{states.count('active')} of {len(states)} named keys are active, {len(settings.api_keys)} in the settings"
        )
    return Finding(State.OK, "client keys", message)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((path for path in (folder, *folder.parents) if path.exists()), Path())
