"""A question goes where it goes, whatever a client wraps around it."""

import json
from itertools import chain

import pytest

from calibration.policies import DATA, read_policy
from router.policy.decision import decide
from router.policy.features import read_question
from router.policy.prediction import predict

TARGET = 0.97
QUESTIONS = 40
MAX_CHARACTERS = 400  # of a question that stands by itself
SMALL_TALK = ("chat/everyday", "chat/conversation-state")  # courtesy is all they say: to peel it off leaves nothing

LIBRARY = """The library opens at nine on weekdays and at eleven on Sundays. Members borrow up to eight books for four
weeks, and renew them twice unless someone else has asked for them. The reading room on the second floor is for silent
work; groups meet in the three rooms beside the staircase, which are booked at the desk. Lost books are paid for at the
price of a new copy. In July the roof was repaired, and the children's section moved to the ground floor until autumn.
Volunteers read aloud there on Wednesday afternoons."""
PARCEL = {
    "type": "function",
    "function": {
        "name": "track_parcel",
        "description": "Where a parcel was last scanned.",
        "parameters": {"type": "object", "properties": {"parcel_id": {"type": "string"}}},
    },
}


def said(text):
    return [{"role": "user", "content": text}]


def with_role(role, text):
    return lambda question: ([{"role": role, "content": text}, *said(question)], None)


def written(form):
    return lambda question: (said(form.format(question)), None)


SAME_TEXT = {
    "a system prompt": with_role("system", "You help the staff of a garden centre. Stay polite, and keep it short."),
    "a developer message": with_role("developer", "Write plain text without Markdown."),
    "parts": lambda question: (said([{"type": "text", "text": question}]), None),
    "newlines around it": written("\n\n{}\n\n\n"),
    "double spaces": lambda question: (said(question.replace(" ", "  ")), None),
}
WRAPPED = {
    "lower case": lambda question: (said(question.lower()), None),
    "a greeting": written("Good evening everyone,\n\n{}"),
    "thanks": written("{}\n\nMany thanks in advance!"),
    "instructions before": written("You are an experienced tutor. Reply briefly to the following question.\n\n{}"),
    "examples before": written("Question: Which sea is saltiest?\nAnswer: The Dead Sea\n\nQuestion: {}\nAnswer:"),
    "a passage before": written(f"Background:\n{LIBRARY}\n\nQuestion: {{}}"),
    "small talk before": lambda question: (
        [*said("Hey, are you there?"), {"role": "assistant", "content": "Yes. What is it about?"}, *said(question)],
        None,
    ),
    "an unrelated tool": lambda question: (said(question), [PARCEL]),
}


def bare_questions():
    """Questions of the project that stand by themselves, evenly from each file."""
    files = (DATA / "questions.jsonl", *sorted((DATA / "requests").glob("*.jsonl")))
    of_files = []
    for path in files:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        texts = [row.get("text") or row.get("question") for row in rows if row["question_type"] not in SMALL_TALK]
        texts = [text for text in texts if text and len(text) <= MAX_CHARACTERS]
        of_files.append(texts[:: max(len(texts) * len(files) // QUESTIONS, 1)])
    return list(chain.from_iterable(of_files))


@pytest.fixture(scope="module")
def decided():
    """The model decided on, by form and question; the bare question's under an empty name."""
    policy, questions = read_policy(DATA / "policy"), bare_questions()
    forms = {"": lambda question: (said(question), None), **SAME_TEXT, **WRAPPED}

    def model(messages, tools):
        features = read_question(messages, tools)
        return decide(policy.rules, features, predict(policy.predictor, features), TARGET).model

    return {name: [model(*form(question)) for question in questions] for name, form in forms.items()}


def flips(decided, forms):
    """The share of decisions that differ from the bare question's, and which forms they are of."""
    counts = {name: sum(a != b for a, b in zip(decided[name], decided[""], strict=True)) for name in forms}
    return sum(counts.values()) / (len(counts) * len(decided[""])), {name: n for name, n in counts.items() if n}


def test_a_system_prompt_parts_and_white_space_change_no_decision(decided):
    share, counts = flips(decided, SAME_TEXT)
    assert share <= 0.02, counts


def test_what_is_wrapped_around_a_question_changes_few_decisions(decided):
    share, counts = flips(decided, SAME_TEXT | WRAPPED)
    assert share <= 0.05, counts
    assert max(counts.values(), default=0) <= 0.1 * len(decided[""]), counts  # nor does any form by itself


def test_the_saving_is_left_where_questions_are_wrapped(decided):
    bare = decided[""].count("gpt-4o-mini")
    assert 0.2 * len(decided[""]) < bare < 0.9 * len(decided[""])  # else no decision could flip
    wrapped = [decided[name].count("gpt-4o-mini") for name in SAME_TEXT | WRAPPED]
    assert sum(wrapped) / len(wrapped) >= 0.9 * bare
