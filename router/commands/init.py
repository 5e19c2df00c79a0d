"""`python -m router init`: write a settings file with every setting and its default, commented out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from router.settings import CONFIG, SettingsError

TEMPLATE = Path(__file__).parents[1] / "settings.toml"


def write(path: Path, *, force: bool) -> None:
    """Write the commented settings to `path`, with mode 0600 because the file may later hold keys.

    Raises:
        SettingsError: the file exists and `force` is false, or it cannot be written.
    """
    content = TEMPLATE.read_bytes()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # an existing file keeps its mode otherwise
            file.write(content)
    except FileExistsError:
        raise SettingsError(f"{path} exists; add --force to replace it") from None
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error


def show(path: Path, *, force: bool) -> None:
    """Write the file and print the next step.

    Raises:
        SettingsError: as `write` does.
    """
    write(path, force=force)
    sys.stdout.write(f"Wrote every setting with its default to {path}. Edit it, then run `python -m router doctor`.\n")
    if path.resolve() != CONFIG.resolve():
        sys.stdout.write(f"The router reads only the {CONFIG} in its working directory.\n")
