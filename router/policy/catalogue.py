"""The table of models, `data/models.json`, read and checked. Pure.

It lists the parameters that a model supports, its capabilities, the day on which it shuts down, and its successor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from router.policy.naming import without_effort
from router.policy.parameters import ENDPOINTS, ParameterRule, ParameterSupport, with_output_limit
from router.policy.roles import INSTRUCTIONS

TRAITS = ("context_tokens", "images", "audio", "tools", "image_tokens")  # of `router.policy.rules.Model`

FULL_SUPPORT = ParameterSupport()


class CatalogueError(ValueError):
    """The table of models is invalid. The message names the model."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the table says about one model."""

    support: ParameterSupport = FULL_SUPPORT
    traits: Mapping[str, Any] = field(default_factory=dict)  # those of `TRAITS` that differ from the defaults
    shutdown_date: date | None = None  # the first day on which its upstream no longer serves it
    successor: str = ""  # the model that answers from then on; "" if none
    source: str = ""  # of the shutdown date


NO_FACTS = ModelFacts()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Facts about models, by exact name or alias."""

    models: Mapping[str, ModelFacts]
    aliases: Mapping[str, str] = field(default_factory=dict)  # of dated snapshots, as in the price book
    judges: Sequence[str] = ()  # models that may judge answers, in order of preference

    @classmethod
    def parse(cls, table: Any, aliases: Mapping[str, str]) -> Catalogue:
        """Read the decoded content of `data/models.json`.

        Raises:
            CatalogueError: the table is invalid. The message names the model.
        """
        if not isinstance(table, Mapping) or not isinstance(table.get("models"), Mapping):
            raise CatalogueError('expected an object with "models": {name: facts}')
        families = table.get("families", {})
        models = {}
        for name, row in table["models"].items():
            try:
                models[name] = _parse_facts(row, families)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise CatalogueError(f"model {name!r}: {error}") from error
        return cls(models, aliases, tuple(table.get("judges", ())))

    def facts(self, name: str) -> ModelFacts:
        """The facts about a model, by its name in a policy; `NO_FACTS` if the table does not list it."""
        facts = self.models.get(name)
        if facts is None:
            model = without_effort(name)
            facts = self.models.get(self.aliases.get(model, model), NO_FACTS)
        return facts

    def default_judge(self, today: date, days: int = 0) -> str:
        """The first judge that its upstream still serves more than `days` days after today; else the last one."""
        for name in self.judges:
            shutdown_date = self.facts(name).shutdown_date
            if shutdown_date is None or (shutdown_date - today).days > days:
                return name
        return self.judges[-1]


def _parse_facts(row: Mapping[str, Any], families: Mapping[str, Any]) -> ModelFacts:
    traits = {name: row[name] for name in TRAITS if name in row}
    if "image_tokens" in traits:
        traits["image_tokens"] = tuple(traits["image_tokens"])
    shutdown_date = row.get("leaves")
    return ModelFacts(
        parse_support(row, families),
        traits,
        None if shutdown_date is None else date.fromisoformat(shutdown_date),
        str(row.get("successor", "")),
        str(row.get("leaves_source", "")),
    )


def parse_support(row: Mapping[str, Any], families: Mapping[str, Any]) -> ParameterSupport:
    """The parameters that the model of a row supports; `families` are lists of rules by name.

    Raises:
        ValueError: a rule or a family is invalid.
    """
    rules: list[ParameterRule] = []
    for entry in row.get("parameters", ()):
        rules += [_parse_rule(rule) for rule in families[entry]] if isinstance(entry, str) else [_parse_rule(entry)]
    limit = row.get("max_output_tokens")
    if limit is not None:
        rules = with_output_limit(rules, int(limit))
    efforts = row.get("efforts")
    return ParameterSupport(
        tuple(rules),
        None if efforts is None else {endpoint: tuple(efforts.get(endpoint, ())) for endpoint in ENDPOINTS},
        str(row.get("default_effort", "")),
        bool(row.get("tools_need_no_effort", False)),
    )


_RULE_FIELDS = frozenset(ParameterRule.__slots__)
_REPLACEMENT_ROLES = frozenset({"system", "user"})


def _parse_rule(row: Any) -> ParameterRule:
    if not isinstance(row, Mapping) or not isinstance(row.get("name"), str) or not set(row) <= _RULE_FIELDS:
        raise ValueError(f"not a rule for a parameter: {row!r}")
    roles = row.get("roles", {})
    if (
        not isinstance(roles, Mapping)
        or not set(roles) <= set(INSTRUCTIONS)
        or not set(roles.values()) <= _REPLACEMENT_ROLES
    ):
        raise ValueError(f"not roles of messages: {roles!r}")
    return ParameterRule(**{**row, "values": tuple(row.get("values", ()))})
