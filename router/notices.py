"""Messages for the operator, shown by `/health`, `/ready` and the dashboard."""

from __future__ import annotations

from typing import Protocol

from router.adaptation.watch import LessonWatch
from router.alerts.alerts import Alerts, as_text
from router.client.keys import Keys
from router.journal.refused import counted
from router.journal.writer import Journal
from router.limits.limiter import Limiter
from router.policy.prices import PriceBook
from router.policy.repricing import price_changes, saving_at_current_prices
from router.serving.policy import Serving
from router.serving.sentinel import SentinelWatch
from router.upstream.upstreams import Upstreams


class Collaborators(Protocol):
    """The parts of a worker that report problems."""

    warnings: list[str]
    alerts: Alerts
    serving: Serving
    keys: Keys
    limiter: Limiter
    lesson_watch: LessonWatch
    upstreams: Upstreams
    sentinel_watch: SentinelWatch
    journal: Journal
    prices: PriceBook


def notices(worker: Collaborators, *, alerts: bool = False) -> list[str]:
    """Messages about models, policy, keys, limits, upstreams, the sentinel and refused journal entries.

    With `alerts`, they include the text of each alert of the last day. Otherwise they include only the number of
    alerts, because `/health` needs no key.
    """
    messages = [*worker.warnings]
    recent = [each for each in worker.alerts.recent() if each.alert.kind != "drifted"]  # see `sentinel_watch`
    if alerts:
        messages += [as_text(each) for each in recent]
    elif recent:
        kinds = ", ".join(sorted({each.alert.kind for each in recent}))
        messages.append(f"{len(recent)} alerts in the last day ({kinds}); admin keys can read them on the dashboard")
    if worker.serving.problem:
        messages.append(f"{worker.serving.problem}; policy {worker.serving.policy.version} is in use")
    if transfer := worker.serving.policy.about.get("transferred_from"):
        models = ",".join(model.name for model in worker.serving.policy.rules.models)
        messages.append(
            f"{models} were not measured: policy {worker.serving.policy.version} is transferred from the policy of "
            f"{' and '.join(transfer['models'])}; "
            f"calibrate with `python -m calibration run --models {models}`"
        )
    if worker.keys.problem:
        messages.append(f"changes of the keys were not applied: {worker.keys.problem}")
    messages += [problem for problem in (worker.limiter.problem, worker.limiter.away) if problem]
    if worker.lesson_watch.problem:
        messages.append(worker.lesson_watch.problem)
    messages += [
        f"{status.upstream} of {status.model} rejects its API key ({status.key_refused}); others are used"
        for status in worker.upstreams.statuses()
        if status.key_refused
    ]
    messages += worker.sentinel_watch.warnings()
    messages += _repriced(worker)
    refused = sum(counted(worker.journal.directory).values())
    if refused:
        messages.append(f"MLflow refused {refused} entries; retry with `python -m router export --refused`")
    return messages


def _repriced(worker: Collaborators) -> list[str]:
    """A message if prices have changed since the policy was certified, with the effect on the saved cost."""
    policy, target = worker.serving.policy, worker.serving.default_target
    changed = price_changes(policy.rules.models, worker.prices)
    if not changed:
        return []
    changes = "; ".join(change.description for change in changed)
    message = f"prices have changed since policy {policy.version} was certified: {changes}"
    rule, now = policy.rules.rule_for(target), saving_at_current_prices(policy.rules, worker.prices, target)
    if rule is not None and now is not None:
        message += (
            f"; at {target:g} it now saves {now[0]:.0%} to {now[1]:.0%} instead of {rule.expected_saving.estimate:.0%}"
        )
    return [f"{message}; certify it again with `python -m calibration reprice`"]
