"""The settings file that `python -m router init` writes: every setting with its default, commented out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from router.settings import CONFIG, SettingsError

TEMPLATE = Path(__file__).parents[1] / "settings.toml"


def write(path: Path, *, force: bool) -> None:
    """Write the commented settings to `path`. Only its owner can read it, since it may come to hold keys.

    Raises:
        SettingsError: the file exists and `force` is not given, or it cannot be written.
    """
    content = TEMPLATE.read_bytes()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # a file that is replaced keeps its mode otherwise
            file.write(content)
    except FileExistsError:
        raise SettingsError(f"{path} exists; add --force to replace it") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error


def show(path: Path, *, force: bool) -> None:
    """Write the file, and say how it is read.

    Raises:
        SettingsError: as `write` does.
    """
    write(path, force=force)
    sys.stdout.write(f"{path} has every setting with its default. Edit it, then run `python -m router doctor`.\n")
    if path.resolve() != CONFIG.resolve():
        sys.stdout.write(f"The router reads only the {CONFIG} of the folder in which it starts.\n")
