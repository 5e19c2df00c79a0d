"""Reading and writing policies, prices and the table of models."""

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

MIN_JUDGE_DAYS = 90  # until the shutdown of a default judge, so that successive calibrations use the same one
TYPED_QUESTIONS = (QUESTIONS, *sorted((DATA / "requests").glob("*.jsonl")))  # shipped questions with types


def read_policy(folder: Path) -> Policy:
    """Read the policy in `folder`.

    Raises:
        PolicyError: a file is missing or has the wrong form.
    """
    try:
        return parse({path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    except PolicyError as error:
        raise PolicyError(str(folder / error.file), error.problem) from error
    except OSError as error:
        raise PolicyError(str(folder), f"cannot be read: {error.strerror}") from error


def write_policy(policy: Policy, folder: Path) -> None:
    """Write the policy's files into `folder`. Each file is replaced atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    files = dump(policy)
    for name, content in files.items():
        partial = folder / (name + ".partial")
        partial.write_bytes(content)
        partial.replace(folder / name)
    for name in set(FILES) - set(files):  # of an earlier policy
        (folder / name).unlink(missing_ok=True)


def load_prices(extra: Path | None = None, shipped: Path = PRICES) -> PriceBook:
    """The shipped prices, extended and overridden by those of `extra`.

    Raises:
        PriceError: a table cannot be read.
    """
    book = PriceBook({}, {})
    for path in (shipped, *([extra] if extra else [])):
        try:
            book = book.merged_with(PriceBook.parse(json.loads(path.read_bytes())))
        except OSError as error:
            raise PriceError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise PriceError(f"{path}: {error}") from error
    return book


@cache
def load_catalogue() -> Catalogue:
    """The shipped table of models: parameters, roles and shutdown dates.

    Raises:
        PriceError: the shipped table cannot be read.
    """
    try:
        return Catalogue.parse(json.loads(MODELS.read_bytes()), load_prices().aliases)
    except (OSError, ValueError, CatalogueError) as error:
        raise PriceError(f"{MODELS}: {error}") from error


def default_judge(today: date | None = None) -> str:
    """The default judge: a model that remains available for at least MIN_JUDGE_DAYS."""
    return load_catalogue().default_judge(today or datetime.now(UTC).date(), MIN_JUDGE_DAYS)


def models_named(names: Sequence[str], prices: PriceBook) -> tuple[Model, ...]:
    """The models of these names, in this order, with their prices.

    Raises:
        PriceError: a model has no price; the message has the line to add.
    """
    models = []
    for name in names:
        model = model_named(name, prices, load_catalogue())
        if model is None:
            line = {name: {"usd_per_million_input_tokens": 0.0, "usd_per_million_output_tokens": 0.0}}
            raise PriceError(
                f"model {name!r} has no price; add it to a file for --prices: {json.dumps({'models': line})}"
            )
        models.append(model)
    return tuple(models)
