"""The shipped questions: their form, their spread, the part that is computed, and the checks of their answers."""

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
    """Runs the generator as a user does; the lines it wrote."""

    def generate(*arguments: str) -> list[str]:
        out = tmp_path_factory.mktemp("generated") / "questions.jsonl"
        assert run("calibration", "generate", *arguments, "--out", out).returncode == 0
        return out.read_text(encoding="utf-8").splitlines(keepends=True)

    return generate


def test_the_shipped_questions_are_many_and_of_the_types_that_traffic_is_made_of(shipped: list[Question]) -> None:
    types = Counter(question.question_type for question in shipped)
    assert len(shipped) >= 400
    assert len(types) >= 16
    assert min(types.values()) >= 8, types.most_common()[-3:]
    assert all(re.fullmatch(r"[a-z-]+/[a-z_-]+", str(name)) for name in types)


def test_several_languages_are_spread_over_the_types(shipped: list[Question]) -> None:
    languages = defaultdict(set)
    for question in shipped:
        languages[question.language].add(question.question_type)
    for language in ("de", "fr", "es", "zh", "ja", "hi", "ar", "pt"):
        assert len(languages[language]) >= 4, (language, languages[language])


def test_some_questions_have_system_prompts_and_earlier_turns_and_some_have_none(shipped: list[Question]) -> None:
    roles = [[message["role"] for message in question.messages] for question in shipped]
    assert sum(turns.count("user") > 1 for turns in roles) >= 20
    assert sum("system" in turns for turns in roles) >= 50
    assert sum("system" not in turns for turns in roles) >= 200


def test_each_type_goes_from_easy_to_hard(rows: list[dict[str, Any]]) -> None:
    levels = defaultdict(set)
    for row in rows:
        levels[row["question_type"]].add(row.get("difficulty"))
    for name, found in levels.items():
        assert {"easy", "medium", "hard"} <= found, name
        assert found <= {"easy", "medium", "hard", None}, name


def test_every_question_is_known_by_two_to_five_facts_or_by_an_exact_check(shipped: list[Question]) -> None:
    for question in shipped:
        assert (question.check is not None) or 2 <= len(question.expected_facts) <= 5, question.id
        assert len(set(question.expected_facts)) == len(question.expected_facts), question.id


def test_no_two_questions_share_their_text(shipped: list[Question]) -> None:
    seen: dict[str, str] = {}
    for question in shipped:
        turns = [str(message["content"]) for message in question.messages if message["role"] != "system"]
        text = " ".join(re.findall(r"\w+", " ".join(turns).casefold()))
        assert text not in seen, (question.id, seen[text])
        seen[text] = question.id


def test_the_generator_remakes_its_part_byte_for_byte(generated: Callable[..., list[str]]) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines(keepends=True)
    computed = [line for line in lines if json.loads(line)["id"].startswith("computed/")]
    assert len(computed) >= 200
    assert generated() == computed


def test_another_seed_writes_other_questions_of_the_same_types(generated: Callable[..., list[str]]) -> None:
    ours, others = (list(map(json.loads, generated("--seed", seed, "--per-type", "3"))) for seed in ("2026", "7"))
    assert [row["question_type"] for row in ours] == [row["question_type"] for row in others]

    def texts(written: list[dict[str, Any]]) -> list[str]:
        return [json.dumps(row.get("messages", row.get("question"))) for row in written if not row.get("tools")]

    assert not set(texts(ours)) & set(texts(others))


def test_a_longer_run_begins_with_the_rows_of_a_shorter_one(generated: Callable[..., list[str]]) -> None:
    dates = ("--seed", "5", "--type", "math/dates", "--per-type")
    assert generated(*dates, "9")[:4] == generated(*dates, "4")


def test_what_the_generator_writes_is_read_back_whole_from_many_seeds(tmp_path: Path) -> None:
    for seed in ("1", "31"):
        out = tmp_path / f"{seed}.jsonl"
        arguments = ("--seed", seed, "--per-type", "15", "--out", out)
        assert run("calibration", "generate", *arguments).returncode == 0
        written = questions.read(str(out))
        assert len(written) == 15 * len({question.question_type for question in written})
        _refuse_near_misses(written)


def test_a_type_that_is_not_known_is_refused_with_the_types_that_are() -> None:
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


def test_each_exact_check_refuses_near_misses(shipped: list[Question]) -> None:
    assert _refuse_near_misses(shipped) >= 1_000


def _refuse_near_misses(asked: list[Question]) -> int:
    """Tries every near miss of every exact check; how many there were."""
    tried = 0
    for question in asked:
        if question.check is None:
            continue
        misses = list(_NEAR_MISSES[question.check.name](question.check))
        assert misses, question.id
        for miss in misses:
            assert not question.check.passes(miss), (question.id, question.check.reference, miss)
        tried += len(misses)
    return tried


def _numbers(check: Check) -> Iterator[str]:
    """One more, one less, the other sign, ten times as much, and just out of tolerance."""
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
    """The text with its last letter or digit changed, or gone."""
    place = max(place for place, sign in enumerate(text) if sign.isalnum())
    other = "1" if text[place] == "0" else "0" if text[place].isdigit() else "b" if text[place] in "aA" else "a"
    yield text[:place] + other + text[place + 1 :]
    yield text[:place] + text[place + 1 :]


def _texts(check: Check) -> Iterator[str]:
    yield from _altered(str(check.accepted_answer()))
    yield f"not {check.accepted_answer()}"
    yield ""


def _phrases(check: Check) -> Iterator[str]:
    needed = check.reference if isinstance(check.reference, list) else [check.reference]
    for place, each in enumerate(needed):
        others = [str(other) for other in needed[:place] + needed[place + 1 :]]
        for miss in _altered(each if isinstance(each, str) else each[0]):
            yield ", ".join([*others, miss])


def _values(check: Check) -> Iterator[str]:
    """A key or an item more, one less, another value, another order."""
    value = check.reference
    if isinstance(value, dict):
        yield from (json.dumps({key: value[key] for key in value if key != gone}) for gone in value)
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
    """No call, a call too many, another tool, an argument changed, left out, or invented."""
    reference = check.reference if isinstance(check.reference, list) else [check.reference]
    if not reference:
        yield json.dumps([{"name": "get_forecast", "arguments": {"town": "Oakham", "day": "2026-01-01"}}])
        return
    made = json.loads(check.accepted_answer())
    yield "I would call a tool for that."
    yield json.dumps([*made, made[0]])
    yield json.dumps(made[:-1])
    for place, call in enumerate(made):
        rest = made[:place] + made[place + 1 :]
        yield json.dumps([*rest, {**call, "name": call["name"] + "_2"}])
        yield json.dumps([*rest, {**call, "arguments": {**call["arguments"], "invented": 1}}])
        for name, value in call["arguments"].items():
            other = value + 1 if isinstance(value, int) else value[:-1]
            yield json.dumps([*rest, {**call, "arguments": {**call["arguments"], name: other}}])
            if not isinstance(reference[place]["arguments"][name], dict):
                left = {key: kept for key, kept in call["arguments"].items() if key != name}
                yield json.dumps([*rest, {**call, "arguments": left}])


_NEAR_MISSES: dict[str, Callable[[Check], Iterator[str]]] = {
    "number": _numbers,
    "choice": _letters,
    "exact": _texts,
    "contains": _phrases,
    "json": _values,
    "regex": _patterns,
    "tool_call": _calls,
}


def test_the_tables_of_the_readme_are_those_of_the_questions() -> None:
    described = run("calibration", "describe")
    assert described.returncode == 0
    assert described.stdout.strip() in (DATA / "README.md").read_text(encoding="utf-8")
