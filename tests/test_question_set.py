"""The shipped questions: their types and languages, the generated part, and the checks of their answers."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from command_line import run

from calibration.checks.checks import Check
from calibration.questions import questions
from calibration.questions.questions import Question

DATA = Path(__file__).parent.parent / "data"
SHIPPED = DATA / "questions.jsonl"


@pytest.fixture(scope="module")
def shipped() -> list[Question]:
    return questions.read(str(SHIPPED))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SHIPPED.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[str]]:
    """A function that runs the `generate` command and returns the written lines."""

    def generate(*arguments: str) -> list[str]:
        out = tmp_path_factory.mktemp("generated") / "questions.jsonl"
        assert run("calibration", "generate", *arguments, "--out", out).returncode == 0
        return out.read_text(encoding="utf-8").splitlines(keepends=True)

    return generate


def test_the_shipped_questions_cover_many_types(shipped: list[Question]) -> None:
    types = Counter(question.question_type for question in shipped)
    assert len(shipped) >= 400
    assert len(types) >= 16
    assert min(types.values()) >= 8, types.most_common()[-3:]
    assert all(re.fullmatch(r"[a-z-]+/[a-z_-]+", str(name)) for name in types)


def test_each_language_occurs_in_several_types(shipped: list[Question]) -> None:
    languages = defaultdict(set)
    for question in shipped:
        languages[question.language].add(question.question_type)
    for language in ("de", "fr", "es", "zh", "ja", "hi", "ar", "pt"):
        assert len(languages[language]) >= 4, (language, languages[language])


def test_questions_with_and_without_system_prompts_and_earlier_turns_exist(shipped: list[Question]) -> None:
    roles = [[message["role"] for message in question.messages] for question in shipped]
    assert sum(turns.count("user") > 1 for turns in roles) >= 20
    assert sum("system" in turns for turns in roles) >= 50
    assert sum("system" not in turns for turns in roles) >= 200


def test_each_type_has_easy_medium_and_hard_questions(rows: list[dict[str, Any]]) -> None:
    levels = defaultdict(set)
    for row in rows:
        levels[row["question_type"]].add(row.get("difficulty"))
    for name, type_levels in levels.items():
        assert {"easy", "medium", "hard"} <= type_levels, name
        assert type_levels <= {"easy", "medium", "hard", None}, name


def test_every_question_has_two_to_five_facts_or_an_exact_check(shipped: list[Question]) -> None:
    for question in shipped:
        assert (question.check is not None) or 2 <= len(question.expected_facts) <= 5, question.id
        assert len(set(question.expected_facts)) == len(question.expected_facts), question.id


def test_no_two_questions_share_their_text(shipped: list[Question]) -> None:
    ids_by_text: dict[str, str] = {}
    for question in shipped:
        turns = [str(message["content"]) for message in question.messages if message["role"] != "system"]
        text = " ".join(re.findall(r"\w+", " ".join(turns).casefold()))
        assert text not in ids_by_text, (question.id, ids_by_text[text])
        ids_by_text[text] = question.id


def test_the_generator_reproduces_the_generated_questions_byte_for_byte(generated: Callable[..., list[str]]) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines(keepends=True)
    computed = [line for line in lines if json.loads(line)["id"].startswith("computed/")]
    assert len(computed) >= 200
    assert generated() == computed


def test_another_seed_writes_other_questions_of_the_same_types(generated: Callable[..., list[str]]) -> None:
    first, second = (list(map(json.loads, generated("--seed", seed, "--per-type", "3"))) for seed in ("2026", "7"))
    assert [row["question_type"] for row in first] == [row["question_type"] for row in second]

    def texts(written: list[dict[str, Any]]) -> list[str]:
        return [json.dumps(row.get("messages", row.get("question"))) for row in written if not row.get("tools")]

    assert not set(texts(first)) & set(texts(second))


def test_a_larger_number_of_questions_starts_with_those_of_a_smaller_number(
    generated: Callable[..., list[str]],
) -> None:
    dates = ("--seed", "5", "--type", "math/dates", "--per-type")
    assert generated(*dates, "9")[:4] == generated(*dates, "4")


def test_generated_questions_of_several_seeds_are_valid(tmp_path: Path) -> None:
    for seed in ("1", "31"):
        path = tmp_path / f"{seed}.jsonl"
        arguments = ("--seed", seed, "--per-type", "15", "--out", path)
        assert run("calibration", "generate", *arguments).returncode == 0
        written = questions.read(str(path))
        assert len(written) == 15 * len({question.question_type for question in written})
        _reject_near_misses(written)


def test_an_unknown_type_is_an_error() -> None:
    failed = run("calibration", "generate", "--type", "math/astrology")
    assert failed.returncode == 2
    assert "math/astrology" in failed.stderr


def test_each_exact_check_accepts_its_reference(shipped: list[Question]) -> None:
    for question in shipped:
        if question.check is None:
            continue
        answer = question.check.accepted_answer()
        assert question.check.passes(answer), question.id
        if question.check.name in ("number", "exact", "choice"):
            assert question.check.passes(f"Let me think, 12 steps or so.\n\nAnswer: {answer}"), question.id


def test_each_exact_check_rejects_near_misses(shipped: list[Question]) -> None:
    assert _reject_near_misses(shipped) >= 1_000


def _reject_near_misses(tested: list[Question]) -> int:
    """Check that every exact check rejects its near misses; return their number."""
    tried = 0
    for question in tested:
        if question.check is None:
            continue
        misses = list(_NEAR_MISSES[question.check.name](question.check))
        assert misses, question.id
        for miss in misses:
            assert not question.check.passes(miss), (question.id, question.check.reference, miss)
        tried += len(misses)
    return tried


def _numbers(check: Check) -> Iterator[str]:
    """One more, one less, the opposite sign, ten times the value, and just outside the tolerance."""
    value = Fraction(str(check.reference))
    beyond = Fraction(str(check.tolerance)) + Fraction(1, 1000)
    near = {value + max(1, beyond), value - max(1, beyond), value + beyond, value - beyond, -value, value * 10}
    for number in near - {value}:
        yield f"Answer: {number}"
    yield "I cannot tell."


def _letters(check: Check) -> Iterator[str]:
    yield from (letter for letter in "ABCDE" if letter != check.reference)
    yield f"{check.reference} or E"


def _altered(text: str) -> Iterator[str]:
    """The text with its last letter or digit changed or removed."""
    index = max(index for index, sign in enumerate(text) if sign.isalnum())
    other = "1" if text[index] == "0" else "0" if text[index].isdigit() else "b" if text[index] in "aA" else "a"
    yield text[:index] + other + text[index + 1 :]
    yield text[:index] + text[index + 1 :]


def _texts(check: Check) -> Iterator[str]:
    yield from _altered(str(check.accepted_answer()))
    yield f"not {check.accepted_answer()}"
    yield ""


def _phrases(check: Check) -> Iterator[str]:
    phrases = check.reference if isinstance(check.reference, list) else [check.reference]
    for index, phrase in enumerate(phrases):
        second = [str(other) for other in phrases[:index] + phrases[index + 1 :]]
        for miss in _altered(phrase if isinstance(phrase, str) else phrase[0]):
            yield ", ".join([*second, miss])


def _values(check: Check) -> Iterator[str]:
    """An additional or missing key or item, another value, another order."""
    value = check.reference
    if isinstance(value, dict):
        yield from (json.dumps({key: value[key] for key in value if key != removed}) for removed in value)
        yield from (json.dumps({**value, key: "something else"}) for key in value)
        yield json.dumps({**value, "note": "more"})
    else:
        yield json.dumps(value[:-1])
        yield json.dumps([*value, value[-1]])
        if value != value[::-1]:
            yield json.dumps(value[::-1])
    yield json.dumps(json.dumps(value))


def _patterns(check: Check) -> Iterator[str]:
    example = check.accepted_answer()
    yield f"Sure! Here it is:\n{example}"
    yield f"{example}\n{example}"
    yield ""


def _calls(check: Check) -> Iterator[str]:
    """No call, an additional call, another tool, and a changed, missing or additional argument."""
    reference = check.reference if isinstance(check.reference, list) else [check.reference]
    if not reference:
        yield json.dumps([{"name": "get_forecast", "arguments": {"town": "Oakham", "day": "2026-01-01"}}])
        return
    accepted = json.loads(check.accepted_answer())
    yield "I would call a tool for that."
    yield json.dumps([*accepted, accepted[0]])
    yield json.dumps(accepted[:-1])
    for index, call in enumerate(accepted):
        remaining_calls = accepted[:index] + accepted[index + 1 :]
        yield json.dumps([*remaining_calls, {**call, "name": call["name"] + "_2"}])
        yield json.dumps([*remaining_calls, {**call, "arguments": {**call["arguments"], "invented": 1}}])
        for name, value in call["arguments"].items():
            other = value + 1 if isinstance(value, int) else value[:-1]
            yield json.dumps([*remaining_calls, {**call, "arguments": {**call["arguments"], name: other}}])
            if not isinstance(reference[index]["arguments"][name], dict):
                remaining = {key: argument for key, argument in call["arguments"].items() if key != name}
                yield json.dumps([*remaining_calls, {**call, "arguments": remaining}])


_NEAR_MISSES: dict[str, Callable[[Check], Iterator[str]]] = {
    "number": _numbers,
    "choice": _letters,
    "exact": _texts,
    "contains": _phrases,
    "json": _values,
    "regex": _patterns,
    "tool_call": _calls,
}


def test_the_readme_of_the_data_has_the_output_of_describe() -> None:
    described = run("calibration", "describe")
    assert described.returncode == 0
    assert described.stdout.strip() in (DATA / "README.md").read_text(encoding="utf-8")
