"""`python -m router decide`: explain a routing decision in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from router.adaptation.adapter import Adapter
from router.client.model_names import parse_target
from router.errors import BadRequestError
from router.planning.explanation import Explanation, explain
from router.planning.summary import matching_tools, summarize_request
from router.policy.decision import Decision, likely_types
from router.policy.rules import Rules
from router.serving.policy import Serving, catalogue, policy_folder, prices, read_policy
from router.serving.sentinel import policy_with_drift
from router.settings import load

MAX_SHOWN = 200  # characters of the question that are printed


def show(question: str, request: str, target: str, folder: Path | None) -> None:
    """Print how a question, or the request in the file `request`, is classified, which model is selected, and why.

    Raises:
        BadRequestError: the body cannot be read, or the target is not a number between 0 and 1.
    """
    settings = load()
    serving = Serving(policy_with_drift(read_policy(folder or policy_folder(settings)), settings.home), "", settings)
    wanted = parse_target(target, "target") if target else None
    adapter = Adapter(catalogue(prices(settings).aliases), settings)
    explanation = explain(serving, adapter, settings.routed_models, _body(question, request), {}, wanted)
    console = Console()
    console.print(_read_as(explanation))
    _print_decision(console, explanation.decision)
    if others := _others(serving.policy.rules, explanation.decision):
        console.print(f"other likely types: {others}", highlight=False)
    console.print(f"words with the largest weight for the type: {_words(explanation.type_words, 1.0)}", highlight=False)
    if explanation.gap_words:
        console.print(
            f"words with the largest weight for the gap, in points of quality: {_words(explanation.gap_words, 100.0)}",
            highlight=False,
        )
    for model, adapted in explanation.adapted.items():
        console.print(f"changed for {model}: {adapted}", highlight=False, markup=False)
    if source := explanation.decision.evidence.source:
        console.print(f"published in: {source}", highlight=False)


def _print_decision(console: Console, decision: Decision) -> None:
    evidence, promise = decision.evidence, decision.promise.value if decision.promise else "no promise"
    console.print(f"[bold]{decision.model}[/bold] because [bold]{decision.reason.value}[/bold]")
    console.print(_table(decision))
    console.print(
        f"target {decision.target:g} ({promise}) · type {decision.question_type} · gap {decision.gap:+.3f} · "
        f"novelty {decision.novelty:.2f} · evidence: {evidence.kind}, {evidence.n} outcomes · "
        f"policy {decision.policy_version}"
    )


def _read_as(explanation: Explanation) -> Table:
    """A table of the parts of the request: question, material, examples, tools, turn and cache."""
    reading = summarize_request(explanation.features, explanation.decision)
    tools = f"{reading['tools_matching']} of {reading['tools_offered']} match"
    if names := ", ".join(filter(None, matching_tools(explanation.features, explanation.decision))):
        tools += f": {names}"
    grid = Table.grid(padding=(0, 2))
    for name, value in {
        "question": _shortened(reading["question"]) or "none",
        "material": f"{reading['material_characters']} characters",
        "examples": str(reading["examples"]),
        "tools": tools if reading["tools_offered"] else "none",
        "turn": str(reading["turn"]),
        "cache": f"holds earlier turns of {reading['cached_model']}"
        if reading["cached_model"]
        else "empty for every model",
    }.items():
        grid.add_row(Text(name, "dim"), Text(value))
    return grid


def _shortened(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= MAX_SHOWN else shown[: MAX_SHOWN - 1] + "…"


def _others(rules: Rules, decision: Decision) -> str:
    return ", ".join(
        f"[bold]{escape(name)}[/bold] {probability:.0%} ({rules.evidence_of(name).kind})"
        for name, probability in likely_types(decision).items()
        if name != decision.question_type
    )


def _words(weights: Mapping[str, float], scale: float) -> str:
    return ", ".join(f"[bold]{escape(word)}[/bold] {weight * scale:+.2f}" for word, weight in weights.items()) or "none"


def _body(question: str, request: str) -> bytes:
    """The request body to decide on: the question as a chat request, or the content of the file `request`.

    Raises:
        BadRequestError: neither or both are given, or the file cannot be read.
    """
    if question.startswith("@") and not request:
        question, request = "", question[1:]
    if bool(question) == bool(request):
        raise BadRequestError("Give either a question or --request FILE.")
    if question:
        return msgspec.json.encode({"messages": [{"role": "user", "content": question}]})
    try:
        content = sys.stdin.buffer.read() if request == "-" else Path(request).read_bytes()
        content.decode()
    except OSError as error:
        raise BadRequestError(f"{request} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadRequestError(f"{request} is not text in UTF-8") from error
    return content


def _table(decision: Decision) -> Table:
    table = Table("model", "expected quality", "measured for this type (95 %)", "expected cost")
    for model, quality in decision.quality.items():
        measured = decision.evidence.quality.get(model)
        interval = f"{measured.estimate:.3f} [{measured.low:.3f}, {measured.high:.3f}]" if measured else "—"
        style = "bold green" if model == decision.model else ""
        cost = f"${decision.expected_cost_usd[model]:.6f}"
        table.add_row(model, f"{quality:.3f}", interval, cost, style=style)
    return table
