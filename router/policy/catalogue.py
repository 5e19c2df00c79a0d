"""What is known of models beside their prices: `data/models.json`, read and checked. Pure.

Which parameters a model takes, how much it holds and reads, when it leaves its upstream, and which model follows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from router.policy.naming import without_effort
from router.policy.parameters import ENDPOINTS, ParameterRule, Takes, limited
from router.policy.roles import INSTRUCTIONS

TRAITS = ("context_tokens", "images", "audio", "tools", "image_tokens")  # of `router.policy.decision.Model`


EVERYTHING = Takes()


class CatalogueError(ValueError):
    """The table of models does not fit its form; the message names the model."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one model."""

    takes: Takes = EVERYTHING
    traits: Mapping[str, Any] = field(default_factory=dict)  # of `TRAITS`, those that differ from the defaults
    leaves: date | None = None  # the day from which its upstream does not answer for it
    successor: str = ""  # the model that answers from then on; "" is none
    source: str = ""  # of the day


NOTHING_KNOWN = Known()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is known of models, by exact name or alias."""

    models: Mapping[str, Known]
    aliases: Mapping[str, str] = field(default_factory=dict)  # dated snapshots, as the price book has them
    judges: Sequence[str] = ()  # models that may judge answers, the first that stays is the default

    @classmethod
    def parse(cls, table: Any, aliases: Mapping[str, str]) -> Catalogue:
        """Read the form of `data/models.json`.

        Raises:
            CatalogueError: what is wrong, with the model's name.
        """
        if not isinstance(table, Mapping) or not isinstance(table.get("models"), Mapping):
            raise CatalogueError('expected an object with "models": {name: what is known of it}')
        families = table.get("families", {})
        models = {}
        for name, row in table["models"].items():
            try:
                models[name] = _known(row, families)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise CatalogueError(f"model {name!r}: {error}") from error
        return cls(models, aliases, tuple(table.get("judges", ())))

    def of(self, name: str) -> Known:
        """What is known of a model, by its name in a policy; nothing where it is not listed."""
        found = self.models.get(name)
        if found is None:
            own = without_effort(name)
            found = self.models.get(self.aliases.get(own, own), NOTHING_KNOWN)
        return found

    def judge(self, today: date, days: int = 0) -> str:
        """The model that judges by default: the first that is still there `days` after today; else the last."""
        for name in self.judges:
            leaves = self.of(name).leaves
            if leaves is None or (leaves - today).days > days:
                return name
        return self.judges[-1]


def _known(row: Mapping[str, Any], families: Mapping[str, Any]) -> Known:
    traits = {name: row[name] for name in TRAITS if name in row}
    if "image_tokens" in traits:
        traits["image_tokens"] = tuple(traits["image_tokens"])
    leaves = row.get("leaves")
    return Known(
        read_takes(row, families),
        traits,
        None if leaves is None else date.fromisoformat(leaves),
        str(row.get("successor", "")),
        str(row.get("leaves_source", "")),
    )


def read_takes(row: Mapping[str, Any], families: Mapping[str, Any]) -> Takes:
    """What a row of `data/models.json` says that its model takes; `families` are lists of rules by name.

    Raises:
        ValueError: a rule or a family does not fit.
    """
    rules: list[ParameterRule] = []
    for each in row.get("parameters", ()):
        rules += [_rule(rule) for rule in families[each]] if isinstance(each, str) else [_rule(each)]
    limit = row.get("max_output_tokens")
    if limit is not None:
        rules = limited(rules, int(limit))
    efforts = row.get("efforts")
    return Takes(
        tuple(rules),
        None if efforts is None else {endpoint: tuple(efforts.get(endpoint, ())) for endpoint in ENDPOINTS},
        str(row.get("default_effort", "")),
        bool(row.get("tools_need_no_effort", False)),
    )


_RULE = frozenset(ParameterRule.__slots__)
_TAKEN = frozenset({"system", "user"})


def _rule(row: Any) -> ParameterRule:
    if not isinstance(row, Mapping) or not isinstance(row.get("name"), str) or not set(row) <= _RULE:
        raise ValueError(f"not a rule for a parameter: {row!r}")
    roles = row.get("roles", {})
    if not isinstance(roles, Mapping) or not set(roles) <= set(INSTRUCTIONS) or not set(roles.values()) <= _TAKEN:
        raise ValueError(f"not roles of messages: {roles!r}")
    return ParameterRule(**{**row, "values": tuple(row.get("values", ()))})
