"""Parameters that users of every client set, by their names on chat completions, and what is asked with them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

ALONE: dict[str, Any] = {
    "max_tokens": 200,
    "temperature": 0,
    "top_p": 0.9,
    "presence_penalty": 0.1,
    "frequency_penalty": 0.1,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "stop": ["END"],
    "seed": 7,
    "user": "someone",
}
TOGETHER = {name: ALONE[name] for name in ("max_tokens", "temperature", "top_p", "presence_penalty", "stop", "seed")}
SAMPLING = {"temperature": 0, "top_p": 0.9}  # what chat completions and responses call the same


class Capital(BaseModel):
    """A structured answer."""

    city: str
    population: int


CAPITAL = Capital(city="Paris", population=3)
