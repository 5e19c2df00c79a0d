"""The shipped data files and the version, in a checkout and in an installed wheel alike."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

NAME = "calibrated-router"
_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = _PACKAGE / "_data"  # the data in a wheel, copied there by `setup.py`
_CHECKOUT = _PACKAGE.parent
_VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)

DATA = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT / "data"
SHIPPED = DATA / "policy"  # the policy that is served if none was promoted
PRICES = DATA / "prices.json"
MODELS = DATA / "models.json"
QUESTIONS = DATA / "questions.jsonl"


def version() -> str:
    """The version of the running code, from its checkout or from the installed wheel.

    A checkout may precede another installed version on the path, so the checkout is read first.
    """
    try:
        if not _INSTALLED.is_dir() and (match := _VERSION.search((_CHECKOUT / "pyproject.toml").read_text("utf-8"))):
            return match[1]
    except OSError:  # the code was copied without pyproject.toml
        pass
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return "unknown"
