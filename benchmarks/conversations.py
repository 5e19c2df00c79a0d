"""Measures routing of conversations and agent loops: model switches, cost, and quality kept.

    python benchmarks/conversations.py ../shared/data/test.jsonl.gz [--policy data/policy] [--conversations 300]
        [--seed 0] [--target 0.97] [--out FILE]

Conversations consist of recorded questions. Each turn has the recorded score and output tokens of its question; the
score is assumed not to depend on earlier turns. The order of the questions, the text of earlier answers (filler of the
recorded length), the short follow-ups (with the outcome of the question before) and the results of tools are simulated.
Questions with tools occur only in agent loops: a conversation offers one set of tools.

Each request is decided like by the proxy, from the whole history ("history"), and for comparison from the last user
message only ("alone"). Input tokens are estimated from the messages, as the proxy does; recorded ones also count the
prompt of the question's source, except with tools. Prices are those of `data/prices.json`. If the model also answered
the request before, and what came before is at least 1,024 tokens, it is billed at the cached price in steps of 128
tokens (OpenAI's guide to prompt caching; answers are assumed to be cached as prompts are). Intervals are 95 %, a
bootstrap over conversations, which share questions.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibration.learning.intervals import bootstrap
from calibration.outcomes import Outcome, read_outcomes
from calibration.policies import DATA, load_prices, read_policy
from router.policy.conversation import CACHED_FROM_TOKENS, CACHED_IN_STEPS_OF
from router.policy.decision import decide
from router.policy.document import Policy
from router.policy.features import CHARACTERS_PER_TOKEN, TOKENS_PER_MESSAGE, read_question
from router.policy.prediction import predict
from router.policy.prices import Price
from router.policy.rules import Interval
from router.policy.usage import Usage

TURNS = (2, 3, 5, 10, 20)
ROUNDS = (2, 3, 5, 10)  # of tool calls and their results, after the first request of a loop
RESAMPLES = 1000
FOLLOW_UPS = (
    "Why?",
    "Shorter, please.",
    "And in French?",
    "Are you sure?",
    "Go on.",
    "ok thanks",
    "Can you explain that step by step?",
    "What does that mean?",
    "Give me an example.",
    "Please check it again.",
    "Could you put the result into a table with two columns?",
    "I don't understand the second part, can you say it more simply?",
)
FILLER = "what was answered before "

Message = Mapping[str, Any]
Choose = Callable[[Sequence[Message], Sequence[Message] | None], str]


@dataclass(frozen=True, slots=True)
class Step:
    """A request: its new message, and the question whose outcome it has."""

    message: Message
    outcome: Outcome
    input_tokens: int  # of the new message; for the first message of a loop also of its tools


@dataclass(frozen=True, slots=True)
class Conversation:
    """Requests, each of which sends everything before it again."""

    steps: Sequence[Step]
    tools: Sequence[Message] | None = None


@dataclass(frozen=True, slots=True)
class Walk:
    """The outcome of a conversation."""

    models: tuple[str, ...]  # the answering model of each request
    score: float  # sum over its requests
    usd: float
    usd_without_cache: float

    @property
    def switches(self) -> int:
        return sum(a != b for a, b in zip(self.models, self.models[1:], strict=False))


def question_step(outcome: Outcome) -> Step:
    """A recorded question, with its input tokens as the module says."""
    recorded = [result.input_tokens for result in outcome.results.values() if outcome.tools and result.input_tokens]
    tokens = max(recorded, default=0) or read_question(outcome.messages, outcome.tools).input_tokens
    return Step(outcome.messages[-1], outcome, tokens)


def added_step(role: str, text: str, outcome: Outcome, **fields: str) -> Step:
    """A simulated message; its tokens are estimated like by the proxy."""
    tokens = math.ceil(len(text) / CHARACTERS_PER_TOKEN) + TOKENS_PER_MESSAGE
    return Step({"role": role, "content": text, **fields}, outcome, tokens)


def mixed_subjects(outcomes: Sequence[Outcome], turns: int, rng: np.random.Generator) -> Conversation:
    """Questions drawn at random."""
    rows = rng.choice(len(outcomes), size=turns, replace=False)
    return Conversation([question_step(outcomes[i]) for i in rows])


def one_subject(outcomes: Sequence[Outcome], turns: int, rng: np.random.Generator) -> Conversation:
    """Questions of one type. Types too small for the longest conversation are left out of all."""
    by_type: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_type[outcome.question_type or ""].append(outcome)
    enough = [outcome for outcome in outcomes if len(by_type[outcome.question_type or ""]) >= max(turns, *TURNS)]
    first_question = enough[int(rng.integers(len(enough)))]
    return mixed_subjects(by_type[first_question.question_type or ""], turns, rng)


def follow_ups(outcomes: Sequence[Outcome], turns: int, rng: np.random.Generator) -> Conversation:
    """Questions drawn at random, each with one or two short turns after it."""
    steps: list[Step] = []
    while len(steps) < turns:
        outcome = outcomes[int(rng.integers(len(outcomes)))]
        texts = rng.choice(FOLLOW_UPS, size=rng.integers(1, 3), replace=False)
        steps += [question_step(outcome), *(added_step("user", str(text), outcome) for text in texts)]
    return Conversation(steps[:turns])


def agent_loop(outcomes: Sequence[Outcome], rounds: int, rng: np.random.Generator) -> Conversation:
    """A task with tools, and the results of as many calls as there are rounds."""
    task = outcomes[int(rng.integers(len(outcomes)))]
    steps = [question_step(task)]
    for number in range(1, rounds + 1):
        lines = [f'{{"row": {i}, "value": {rng.integers(10**6)}}}' for i in range(rng.integers(8, 20))]
        steps.append(added_step("tool", "\n".join(lines), task, tool_call_id=f"call_{number}"))
    return Conversation(steps, task.tools)


Build = Callable[[Sequence[Outcome], int, np.random.Generator], Conversation]
KINDS: Mapping[str, tuple[Build, Sequence[int]]] = {
    "mixed subjects": (mixed_subjects, TURNS),
    "one subject": (one_subject, TURNS),
    "with follow-ups": (follow_ups, TURNS),
    "agent loop": (agent_loop, ROUNDS),
}


def answer(step: Step, tokens: int, upcoming: Step) -> Message:
    """A simulated answer: a tool call if the next message is a tool's result, and text otherwise."""
    characters = int(tokens * CHARACTERS_PER_TOKEN)
    text = (FILLER * (characters // len(FILLER) + 1))[:characters]
    if upcoming.message["role"] != "tool":
        return {"role": "assistant", "content": text}
    tool = (step.outcome.tools or [{}])[0]
    call = {"name": tool.get("function", {}).get("name", ""), "arguments": text}
    calls = [{"id": upcoming.message["tool_call_id"], "type": "function", "function": call}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def walk(conversation: Conversation, prices: Mapping[str, Price], choose: Choose) -> Walk:
    """Send each request to the model that `choose` names."""
    messages: list[Message] = []
    models: list[str] = []
    earlier_tokens = 0  # tokens of the earlier messages
    score = usd = usd_without_cache = 0.0
    for index, step in enumerate(conversation.steps):
        messages.append(step.message)
        model = choose(messages, conversation.tools)
        result, price = step.outcome.results[model], prices[model]
        assert result.output_tokens is not None
        output_tokens, input_tokens = result.output_tokens, earlier_tokens + step.input_tokens
        cached = cached_tokens(earlier_tokens) if models and models[-1] == model else 0
        score += result.score
        usd += price.cost_usd(Usage(input_tokens, output_tokens, cached))
        usd_without_cache += price.cost_usd(Usage(input_tokens, output_tokens))
        models.append(model)
        earlier_tokens = input_tokens + output_tokens
        if index + 1 < len(conversation.steps):
            messages.append(answer(step, output_tokens, conversation.steps[index + 1]))
    return Walk(tuple(models), score, usd, usd_without_cache)


def cached_tokens(earlier_tokens: int) -> int:
    """Tokens that the provider reads from its cache if the same model read these before."""
    return earlier_tokens - earlier_tokens % CACHED_IN_STEPS_OF if earlier_tokens >= CACHED_FROM_TOKENS else 0


def by_policy(policy: Policy, target: float) -> Choose:
    """Choose the model that the proxy sends a request to."""

    def choose(messages: Sequence[Message], tools: Sequence[Message] | None) -> str:
        features = read_question(messages, tools)
        return decide(policy.rules, features, predict(policy.predictor, features), target).model

    return choose


def without_history(choose: Choose) -> Choose:
    """Choose by the last user message only, without the history."""
    return lambda messages, tools: choose([message for message in messages if message["role"] == "user"][-1:], tools)


@dataclass(frozen=True, slots=True)
class Row:
    """Conversations of one kind and length, with one way to decide."""

    kind: str
    requests: int  # in each conversation
    decided_on: str
    conversations: int
    switches: float  # a conversation
    without_a_switch: float  # share of conversations
    cheap: float  # share of requests
    usd: Interval  # share of the strong-only cost, both with caching
    usd_beside_alone: Interval | None  # change of that share by the history
    usd_of_uncached: float  # share of the cost of the same decisions without a cache
    kept: Interval  # share of the strong model's quality


def build_rows(
    kind: str, walks: Mapping[str, Sequence[Walk]], strong: Sequence[Walk], cheap: str, seed: int
) -> list[Row]:
    """One row per way to decide, from its walks through the same conversations."""
    usd_alone = np.array([walked.usd for walked in walks[ALONE]])
    strong_usd, strong_score = (
        np.array([walked.usd for walked in strong]),
        np.array([walked.score for walked in strong]),
    )

    def ratio(values: np.ndarray, base: np.ndarray) -> Interval:
        def share(rows: np.ndarray) -> float:
            return float(values[rows].sum() / base[rows].sum())

        return bootstrap(share, np.arange(len(base)), RESAMPLES, seed)

    rows = []
    for decided_on, walks_of_way in walks.items():
        switches, usd = (
            np.array([walked.switches for walked in walks_of_way]),
            np.array([walked.usd for walked in walks_of_way]),
        )
        rows.append(
            Row(
                kind=kind,
                requests=len(walks_of_way[0].models),
                decided_on=decided_on,
                conversations=len(walks_of_way),
                switches=float(switches.mean()),
                without_a_switch=float((switches == 0).mean()),
                cheap=float(np.mean([model == cheap for walked in walks_of_way for model in walked.models])),
                usd=ratio(usd, strong_usd),
                usd_beside_alone=None if decided_on == ALONE else ratio(usd - usd_alone, strong_usd),
                usd_of_uncached=float(usd.sum() / sum(walked.usd_without_cache for walked in walks_of_way)),
                kept=ratio(np.array([walked.score for walked in walks_of_way]), strong_score),
            )
        )
    return rows


WHOLE, ALONE = "history", "alone"
HEADER = (
    "conversations",
    "requests",
    "n",
    "decided on",
    "switches",
    "no switch",
    "cheap",
    "dollars",
    "against alone",
    "of uncached",
    "quality kept",
)


def format_row(row: Row) -> str:
    """A row as a line of a Markdown table."""
    difference = row.usd_beside_alone
    return table_line(
        row.kind,
        str(row.requests),
        str(row.conversations),
        row.decided_on,
        f"{row.switches:.2f}",
        f"{row.without_a_switch:.0%}",
        f"{row.cheap:.0%}",
        "{1:.3f} ({0:.3f} to {2:.3f})".format(*row.usd),
        "-" if difference is None else "{1:+.3f} ({0:+.3f} to {2:+.3f})".format(*difference),
        f"{row.usd_of_uncached:.2f}",
        "{1:.3f} ({0:.3f} to {2:.3f})".format(*row.kept),
    )


def table_line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def measure(
    outcomes: Sequence[Outcome], policy: Policy, kind: str, length: int, conversations: int, seed: int, target: float
) -> list[Row]:
    """Build conversations of one kind and length, and walk through each in every way."""
    build, _ = KINDS[kind]
    names = [model.name for model in policy.rules.models]
    book = load_prices()
    prices = {name: price for name in names if (price := book.price(name)) is not None}
    rng = np.random.default_rng([seed, list(KINDS).index(kind), length])
    measured = [
        outcome for outcome in outcomes if all(result.output_tokens is not None for result in outcome.results.values())
    ]
    rows = [outcome for outcome in measured if bool(outcome.tools) == (kind == "agent loop")]
    built = [build(rows, length, rng) for _ in range(conversations)]
    choose = by_policy(policy, target)
    walks = {
        name: [walk(conversation, prices, chooses) for conversation in built]
        for name, chooses in {WHOLE: choose, ALONE: without_history(choose)}.items()
    }
    strong = [walk(conversation, prices, lambda *_: names[-1]) for conversation in built]
    return build_rows(kind, walks, strong, names[0], seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outcomes", type=Path)
    parser.add_argument("--policy", type=Path, default=DATA / "policy")
    parser.add_argument("--conversations", type=int, default=300, help="of each kind and length")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=0.97)
    parser.add_argument("--out", type=Path, help="file for the rows as JSON lines")
    arguments = parser.parse_args()
    if not arguments.outcomes.is_file():
        print(f"skipped: {arguments.outcomes} is not here")
        return 0
    policy = read_policy(arguments.policy)
    outcomes = read_outcomes([arguments.outcomes], [model.name for model in policy.rules.models])
    rows: list[Row] = []
    print(table_line(*HEADER), table_line(*["---"] * len(HEADER)), sep="\n")
    for kind, (_, lengths) in KINDS.items():
        for length in lengths:
            measured_rows = measure(
                outcomes, policy, kind, length, arguments.conversations, arguments.seed, arguments.target
            )
            rows += measured_rows
            print(*map(format_row, measured_rows), sep="\n", flush=True)
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
