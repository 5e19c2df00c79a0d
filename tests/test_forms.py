"""The decision on a question does not depend on what a client wraps around it."""

import json
from itertools import chain

import pytest

from calibration.policies import DATA, read_policy
from router.policy.decision import decide
from router.policy.features import read_question
from router.policy.prediction import predict

TARGET = 0.97
QUESTIONS = 40
MAX_CHARACTERS = 400  # of a question without history
SMALL_TALK = ("chat/everyday", "chat/conversation-state")  # they contain only courtesy: removing it leaves nothing

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


def user_message(text):
    return [{"role": "user", "content": text}]


def with_role(role, text):
    return lambda question: ([{"role": role, "content": text}, *user_message(question)], None)


def write_form(form):
    return lambda question: (user_message(form.format(question)), None)


SAME_TEXT = {
    "a system prompt": with_role("system", "You help the staff of a garden centre. Stay polite, and keep it short."),
    "a developer message": with_role("developer", "Write plain text without Markdown."),
    "parts": lambda question: (user_message([{"type": "text", "text": question}]), None),
    "newlines around it": write_form("\n\n{}\n\n\n"),
    "double spaces": lambda question: (user_message(question.replace(" ", "  ")), None),
}
WRAPPED = {
    "lower case": lambda question: (user_message(question.lower()), None),
    "a greeting": write_form("Good evening everyone,\n\n{}"),
    "thanks": write_form("{}\n\nMany thanks in advance!"),
    "instructions before": write_form("You are an experienced tutor. Reply briefly to the following question.\n\n{}"),
    "examples before": write_form("Question: Which sea is saltiest?\nAnswer: The Dead Sea\n\nQuestion: {}\nAnswer:"),
    "a passage before": write_form(f"Background:\n{LIBRARY}\n\nQuestion: {{}}"),
    "small talk before": lambda question: (
        [
            *user_message("Hey, are you there?"),
            {"role": "assistant", "content": "Yes. What is it about?"},
            *user_message(question),
        ],
        None,
    ),
    "an unrelated tool": lambda question: (user_message(question), [PARCEL]),
}


def bare_questions():
    """Questions of the project without history, evenly from each file."""
    files = (DATA / "questions.jsonl", *sorted((DATA / "requests").glob("*.jsonl")))
    of_files = []
    for path in files:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        texts = [row.get("text") or row.get("question") for row in rows if row["question_type"] not in SMALL_TALK]
        texts = [text for text in texts if text and len(text) <= MAX_CHARACTERS]
        of_files.append(texts[:: max(len(texts) * len(files) // QUESTIONS, 1)])
    return list(chain.from_iterable(of_files))


@pytest.fixture(scope="module")
def decisions():
    """The chosen model by form and question; the bare question has an empty name."""
    policy, questions = read_policy(DATA / "policy"), bare_questions()
    forms = {"": lambda question: (user_message(question), None), **SAME_TEXT, **WRAPPED}

    def model(messages, tools):
        features = read_question(messages, tools)
        return decide(policy.rules, features, predict(policy.predictor, features), TARGET).model

    return {name: [model(*form(question)) for question in questions] for name, form in forms.items()}


def flips(decisions, forms):
    """The share of decisions that differ from the bare question's, and the forms that cause them."""
    counts = {
        name: sum(changed != unchanged for changed, unchanged in zip(decisions[name], decisions[""], strict=True))
        for name in forms
    }
    return sum(counts.values()) / (len(counts) * len(decisions[""])), {name: n for name, n in counts.items() if n}


def test_a_system_prompt_parts_and_white_space_change_no_decision(decisions):
    share, counts = flips(decisions, SAME_TEXT)
    assert share <= 0.02, counts


def test_text_around_a_question_changes_few_decisions(decisions):
    share, counts = flips(decisions, SAME_TEXT | WRAPPED)
    assert share <= 0.05, counts
    assert max(counts.values(), default=0) <= 0.1 * len(decisions[""]), counts  # nor does any single form


def test_wrapped_questions_still_save_cost(decisions):
    bare = decisions[""].count("gpt-4o-mini")
    assert 0.2 * len(decisions[""]) < bare < 0.9 * len(decisions[""])  # otherwise no decision could change
    wrapped = [decisions[name].count("gpt-4o-mini") for name in SAME_TEXT | WRAPPED]
    assert sum(wrapped) / len(wrapped) >= 0.9 * bare
