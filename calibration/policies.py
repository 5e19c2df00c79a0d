"""Policies and prices as folders and files, and the models that prices are known for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path

from router.policy.catalogue import Catalogue, CatalogueError
from router.policy.distribution import DATA, MODELS, PRICES, QUESTIONS
from router.policy.document import FILES, Policy, PolicyError, dump, parse
from router.policy.models import model_named
from router.policy.prices import PriceBook, PriceError
from router.policy.rules import Model

JUDGE_STAYS_DAYS = 90  # so that verdicts of one calibration can be compared with those of the next
TYPED = (QUESTIONS, *sorted((DATA / "requests").glob("*.jsonl")))  # questions whose types are known


def read_policy(folder: Path) -> Policy:
    """Read the policy in `folder`.

    Raises:
        PolicyError: with the file's path, where it is missing or does not fit.
    """
    try:
        return parse({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    except PolicyError as error:
        raise PolicyError(str(folder / error.file), error.problem) from error
    except OSError as error:
        raise PolicyError(str(folder), f"cannot be read: {error.strerror}") from error


def write_policy(policy: Policy, folder: Path) -> None:
    """Write the policy's files into `folder`, each replaced at once."""
    folder.mkdir(parents=True, exist_ok=True)
    files = dump(policy)
    for name, content in files.items():
        partial = folder / (name + ".partial")
        partial.write_bytes(content)
        partial.replace(folder / name)
    for name in set(FILES) - set(files):  # of a policy that was here before
        (folder / name).unlink(missing_ok=True)


def load_prices(extra: Path | None = None, shipped: Path = PRICES) -> PriceBook:
    """The shipped prices, with those of `extra` added or in their place.

    Raises:
        PriceError: a table cannot be read; names the file.
    """
    book = PriceBook({}, {})
    for path in (shipped, *([extra] if extra else [])):
        try:
            book = book.merged_with(PriceBook.parse(json.loads(path.read_bytes())))
        except OSError as error:
            raise PriceError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise PriceError(f"{path}: {error}") from error
    return book


@cache
def load_catalogue() -> Catalogue:
    """What is known of models beside their prices.

    Raises:
        PriceError: the shipped table cannot be read; names the file.
    """
    try:
        return Catalogue.parse(json.loads(MODELS.read_bytes()), load_prices().aliases)
    except (OSError, ValueError, CatalogueError) as error:
        raise PriceError(f"{MODELS}: {error}") from error


def default_judge(today: date | None = None) -> str:
    """The model that judges where none is named: one that stays for `JUDGE_STAYS_DAYS` at least."""
    return load_catalogue().default_judge(today or datetime.now(UTC).date(), JUDGE_STAYS_DAYS)


def models_named(names: Sequence[str], prices: PriceBook) -> tuple[Model, ...]:
    """The models of these names, in this order, with their prices.

    Raises:
        PriceError: a model has no price; shows the line to add.
    """
    models = []
    for name in names:
        model = model_named(name, prices, load_catalogue())
        if model is None:
            line = {name: {"usd_per_million_input_tokens": 0.0, "usd_per_million_output_tokens": 0.0}}
            raise PriceError(
                f"model {name!r} has no price; add it to a file given by --prices: {json.dumps({'models': line})}"
            )
        models.append(model)
    return tuple(models)
