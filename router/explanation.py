"""A decision, explained in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from router.errors import BadRequestError
from router.planning import decision_for, features_of
from router.policy.decision import Decision, Rules, likely_types
from router.policy.prediction import word_weights
from router.routing import share
from router.serving import Serving, policy_folder, read_policy
from router.settings import load
from router.surfaces import CHAT
from router.wire import bodies


def explain(question: str, target: str, folder: Path | None) -> None:
    """Print which model would answer, and on what evidence.

    Raises:
        BadRequestError: the body in a file cannot be read, or the target is none.
    """
    settings = load()
    serving = Serving(read_policy(folder or policy_folder(settings)), settings)
    wanted = share(target, "target") if target else serving.default_target
    features = features_of(CHAT, bodies.read_fields(_body(question)))
    decision = decision_for(serving, features, wanted)
    console = Console()
    console.print(f"[bold]{decision.model}[/bold] because [bold]{decision.reason.value}[/bold]")
    console.print(_table(decision))
    evidence = decision.evidence
    console.print(
        f"target {decision.target:g} · type {decision.question_type} · gap {decision.gap:+.3f} · "
        f"novelty {decision.novelty:.2f} · evidence: {evidence.kind}, {evidence.n} outcomes · "
        f"policy {decision.policy_version}"
    )
    if others := _others(serving.policy.rules, decision):
        console.print(f"may also be: {others}", highlight=False)
    of_type, of_gap = word_weights(serving.policy.predictor, features)
    console.print(f"words that weighed most for the type: {_words(of_type, 1.0)}", highlight=False)
    if of_gap:
        console.print(f"and for the gap, in points of quality: {_words(of_gap, 100.0)}", highlight=False)
    if evidence.source:
        console.print(f"published in: {evidence.source}", highlight=False)


def _others(rules: Rules, decision: Decision) -> str:
    return ", ".join(
        f"[bold]{escape(name)}[/bold] {probability:.0%} ({rules.evidence_of(name).kind})"
        for name, probability in likely_types(decision).items()
        if name != decision.question_type
    )


def _words(weights: Mapping[str, float], scale: float) -> str:
    return ", ".join(f"[bold]{escape(word)}[/bold] {weight * scale:+.2f}" for word, weight in weights.items()) or "none"


def _body(question: str) -> bytes:
    if not question.startswith("@"):
        return msgspec.json.encode({"messages": [{"role": "user", "content": question}]})
    try:
        return Path(question[1:]).read_bytes()
    except OSError as error:
        raise BadRequestError(f"{question[1:]}: cannot be read: {error.strerror}") from error


def _table(decision: Decision) -> Table:
    table = Table("model", "expected quality", "known of this type (95 %)", "expected cost")
    for model, quality in decision.quality.items():
        measured = decision.evidence.quality.get(model)
        interval = f"{measured.estimate:.3f} [{measured.low:.3f}, {measured.high:.3f}]" if measured else "—"
        style = "bold green" if model == decision.model else ""
        cost = f"${decision.expected_cost_usd[model]:.6f}"
        table.add_row(model, f"{quality:.3f}", interval, cost, style=style)
    return table
