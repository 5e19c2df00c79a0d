"""What the operator should know, in words: for `/health`, `/ready` and the dashboard."""

from __future__ import annotations

from typing import Protocol

from router.adaptation.watch import LessonWatch
from router.alerts.alerts import Alerts, in_words
from router.client.keys import Keys
from router.journal.refused import counted
from router.journal.writer import Journal
from router.limits.limiter import Limiter
from router.policy.prices import PriceBook
from router.policy.repricing import moved, saving_now
from router.serving.policy import Serving
from router.serving.sentinel import SentinelWatch
from router.upstream.upstreams import Upstreams


class Collaborators(Protocol):
    """The parts of a worker that have something to say."""

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
    """What the operator should know about models, policy, keys, limits, upstreams, the sentinel and refused entries.

    With `alerts`, the alerts of the last day are spelled out; otherwise only their number is given, because `/health`
    needs no key.
    """
    told = [*worker.warnings]
    raised = [each for each in worker.alerts.recent() if each.alert.kind != "drifted"]  # the sentinel tells of those
    if alerts:
        told += [in_words(each) for each in raised]
    elif raised:
        kinds = ", ".join(sorted({each.alert.kind for each in raised}))
        told.append(f"{len(raised)} alerts in the last day ({kinds}); the page tells them to admin keys")
    if worker.serving.problem:
        told.append(f"{worker.serving.problem}; policy {worker.serving.policy.version} serves")
    if made_from := worker.serving.policy.about.get("transferred_from"):
        models = ",".join(model.name for model in worker.serving.policy.rules.models)
        told.append(
            f"nothing was measured of {models}: policy {worker.serving.policy.version} is transferred from that of "
            f"{' and '.join(made_from['models'])}; "
            f"calibrate with `python -m calibration run --models {models}`"
        )
    if worker.keys.problem:
        told.append(f"the keys stay as they were: {worker.keys.problem}")
    told += [problem for problem in (worker.limiter.problem, worker.limiter.away) if problem]
    if worker.lesson_watch.problem:
        told.append(worker.lesson_watch.problem)
    told += [
        f"{each.upstream} of {each.model} refuses its key ({each.key_refused}), so others are asked"
        for each in worker.upstreams.standing()
        if each.key_refused
    ]
    told += worker.sentinel_watch.told()
    told += _repriced(worker)
    refused = sum(counted(worker.journal.directory).values())
    if refused:
        told.append(f"{refused} entries that were refused wait for `python -m router export --refused`")
    return told


def _repriced(worker: Collaborators) -> list[str]:
    """Whether the policy was certified at other prices, and what that does to what it saves."""
    policy, target = worker.serving.policy, worker.serving.default_target
    changed = moved(policy.rules.models, worker.prices)
    if not changed:
        return []
    told = f"policy {policy.version} was made at other prices: {'; '.join(each.told for each in changed)}"
    rule, now = policy.rules.rule(target), saving_now(policy.rules, worker.prices, target)
    if rule is not None and now is not None:
        told += f"; at {target:g} it saves {now[0]:.0%} to {now[1]:.0%} now, {rule.expected_saving.estimate:.0%} then"
    return [f"{told}; `python -m calibration reprice` certifies it anew"]
