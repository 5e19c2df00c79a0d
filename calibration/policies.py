"""Policies and prices as folders and files, and the models that prices are known for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from router.policy.decision import Model
from router.policy.distribution import DATA, PRICES, QUESTIONS
from router.policy.document import Policy, PolicyError, dump, parse
from router.policy.prices import Price, PriceBook, PriceError

TYPED = (QUESTIONS, *sorted((DATA / "requests").glob("*.jsonl")))  # questions whose types are known

# What differs from the defaults of `Model`. Image tokens, of an image and of a tile, after OpenAI's guide to vision.
# Small models of gpt-4.1 count patches of 32 pixels, times 1.62 and 2.46: here 256 of them, and 192 for each tile.
_KNOWN: dict[str, dict[str, Any]] = {
    "gpt-4o-mini": {"image_tokens": (2833, 5667)},
    "gpt-4.1": {"context_tokens": 1_047_576},
    "gpt-4.1-mini": {"context_tokens": 1_047_576, "image_tokens": (415, 311)},
    "gpt-4.1-nano": {"context_tokens": 1_047_576, "image_tokens": (630, 472)},
}


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
    for name, content in dump(policy).items():
        partial = folder / (name + ".partial")
        partial.write_bytes(content)
        partial.replace(folder / name)


def load_prices(extra: Path | None = None, shipped: Path = PRICES) -> PriceBook:
    """The shipped prices, with those of `extra` added or in their place.

    Raises:
        PriceError: a table cannot be read; names the file.
    """
    book = PriceBook({}, {})
    for path in (shipped, *([extra] if extra else [])):
        try:
            book = book.extended(PriceBook.parse(json.loads(path.read_bytes())))
        except OSError as error:
            raise PriceError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise PriceError(f"{path}: {error}") from error
    return book


def models_named(names: Sequence[str], prices: PriceBook) -> tuple[Model, ...]:
    """The models of these names, in this order, with their prices.

    Raises:
        PriceError: a model has no price; shows the line to add.
    """
    return tuple(_model(name, prices.price(name)) for name in names)


def _model(name: str, price: Price | None) -> Model:
    if price is None:
        line = {name: {"usd_per_million_input_tokens": 0.0, "usd_per_million_output_tokens": 0.0}}
        raise PriceError(
            f"model {name!r} has no price; add it to a file given by --prices: {json.dumps({'models': line})}"
        )
    return replace(Model(name, price), **_KNOWN.get(name, {}))
