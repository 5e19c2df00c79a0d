"""Separates the question in a text from the material, worked examples, instructions and courtesy around it.

The structure of the text shows the parts: labels such as `Question:`, tags, quotes, and a short question beside long
material. Each step reads every character a bounded number of times.
"""

from __future__ import annotations

import re

import msgspec

from router.policy.courtesy import strip_courtesy
from router.policy.sections import Part, split_sections
from router.policy.text import normalise

MIN_MATERIAL_CHARACTERS = 500  # a question beside less material is read together with it
MAX_QUESTION_LINE_CHARACTERS = 400  # of an unlabelled question in a line beside material
MAX_QUESTION_PARAGRAPH_CHARACTERS = 1_500  # of an unlabelled question in a paragraph beside material
MIN_QUESTION_WORDS = 4

_OPTION = re.compile(r"[(\[]?[A-Za-j1-9][).:\]] ?\S|[-*•] ")
_FIRST_WORDS = frozenset(  # of a request
    re.findall(
        r"\S+",
        "add analyse analyze answer arrange calculate check choose classify compare complete compute convert "
        "correct count create decide define describe detect determine draft edit estimate evaluate explain express "
        "extract fill find fix generate get give help identify improve label list make match name order outline "
        "paraphrase please predict prove provide rank rate reformat rephrase replace return rewrite schedule "
        "select send set show simplify solve sort suggest summarise summarize tag tell translate turn update use "
        "verify what when where which who why how write i'd i'm i need can could would",
    )
)


class QuestionParts(msgspec.Struct, frozen=True, gc=False):
    """A text, separated into its parts."""

    question: str  # the whole text if no other part was found
    material: str = ""  # the text that the question is about
    examples: int = 0  # number of example questions shown with their answers


def split_question(text: str) -> QuestionParts:
    r"""Separate the question in a text from what surrounds it.

    >>> split_question("Context:\nBonn lies on the Rhine.\n\nQuestion: Where does Bonn lie?\nAnswer:").question
    'Where does Bonn lie?'
    >>> split_question("Q: 1+1?\nA: 2\n\nQ: 2+3?\nA:")
    QuestionParts(question='2+3?', material='', examples=1)
    >>> split_question("Hi! You are a helpful assistant. Who wrote Faust? Thanks").question
    'Who wrote Faust?'
    """
    clean = normalise(text)
    sections = split_sections(clean)
    if len(sections) == 1 and sections[0][0] is Part.FREE:
        return _split_unlabelled(sections[0][1])
    outer = _split_labelled(sections, clean)
    inner = _split_unlabelled(outer.question)
    return QuestionParts(inner.question, "\n".join(filter(None, (outer.material, inner.material))), outer.examples)


def is_material(text: str) -> bool:
    """Whether a text is material alone, such as the result of a tool that is sent as a turn.

    >>> is_material("Observation: 17 rows were found."), is_material("Question: how deep?")
    (True, False)
    """
    return {part for part, _ in split_sections(normalise(text))} == {Part.MATERIAL}


def _split_labelled(sections: list[tuple[Part, str]], text: str) -> QuestionParts:
    """The parts of a text with labels: the last labelled question, else the text without a label, else all of it."""
    material = [body for part, body in sections if part is Part.MATERIAL and body]
    questions = [at for at, (part, body) in enumerate(sections) if part is Part.QUESTION and body]
    answers = [at for at, (part, body) in enumerate(sections) if part is Part.ANSWER and body]
    if questions:
        last = questions[-1]
        examples = sum(1 for at in answers if at < last)
        free = [body for part, body in sections if part is Part.FREE and len(body) >= MIN_MATERIAL_CHARACTERS]
        question = sections[last][1]
        return QuestionParts(strip_courtesy(question) or question, "\n".join([*material, *free]), examples)
    free = [body for part, body in sections if part is Part.FREE and body]
    question = strip_courtesy("\n".join(free))
    if question:
        return QuestionParts(question, "\n".join(material), len(answers))
    if material:
        *before, last_part = material[-1].split("\n\n") if "\n\n" in material[-1] else material[-1].split("\n")
        if before and len(last_part) <= MAX_QUESTION_LINE_CHARACTERS:
            question = strip_courtesy(last_part) or last_part
            return QuestionParts(question, "\n".join([*material[:-1], *before]), len(answers))
    everything = "\n".join(body for _, body in sections if body) or text
    return QuestionParts(strip_courtesy(everything) or everything)


def _split_unlabelled(text: str) -> QuestionParts:
    """The parts of a text without labels: all of it is the question, or a short part before or after long material."""
    essence = strip_courtesy(text) or text
    if len(essence) < MIN_MATERIAL_CHARACTERS or "\n" not in essence:
        return QuestionParts(essence)
    for separator, limit in (("\n\n", MAX_QUESTION_PARAGRAPH_CHARACTERS), ("\n", MAX_QUESTION_LINE_CHARACTERS)):
        pieces = [piece for piece in essence.split(separator) if piece]
        end = len(pieces)
        while end > 1 and _OPTION.match(pieces[end - 1]):
            end -= 1
        question, before = separator.join(pieces[end - 1 :]), separator.join(pieces[: end - 1])
        if len(before) >= MIN_MATERIAL_CHARACTERS and _is_question(pieces[end - 1], limit):
            return QuestionParts(question, before)
        question, after = pieces[0], separator.join(pieces[1:])
        if len(after) < MIN_MATERIAL_CHARACTERS or question[-1] not in ":?.":
            continue
        if _is_question(question, MAX_QUESTION_LINE_CHARACTERS):
            return QuestionParts(question, after)
    return QuestionParts(essence)


def _is_question(text: str, max_characters: int) -> bool:
    """Whether a piece of a text asks for something: it has a question mark, or begins like a request."""
    words = text.split(None, MIN_QUESTION_WORDS)
    if len(text) > max_characters or len(words) < MIN_QUESTION_WORDS:
        return False
    return "?" in text or words[0].lower().strip(",.:") in _FIRST_WORDS
