"""What comes with the programs: the shipped data, and the version. In a checkout and in an installed wheel alike."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

NAME = "calibrated-router"
_PACKAGE = Path(__file__).resolve().parent.parent
_INSTALLED = _PACKAGE / "_data"  # where `setup.py` puts the data in a wheel
_CHECKOUT = _PACKAGE.parent
_VERSION = re.compile(r'^version = "([^"]+)"$', re.MULTILINE)

DATA = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT / "data"
SHIPPED = DATA / "policy"  # the policy that serves where none was promoted
PRICES = DATA / "prices.json"
MODELS = DATA / "models.json"
QUESTIONS = DATA / "questions.jsonl"


def version() -> str:
    """The version of the code that runs: of the installed wheel, or of the checkout that the code lies in.

    An installed version and a checkout that goes before it on the path may differ, so a checkout is asked first.
    """
    try:
        if not _INSTALLED.is_dir() and (found := _VERSION.search((_CHECKOUT / "pyproject.toml").read_text("utf-8"))):
            return found[1]
    except OSError:  # the code was copied without it
        pass
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return "unknown"
