"""Cuts a text into sections at its labels, tags and triple quotation marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum


class Part(StrEnum):
    """The kind of a section."""

    FREE = "free"  # without a label
    QUESTION = "question"
    ANSWER = "answer"
    MATERIAL = "material"
    INSTRUCTION = "instruction"


_LABELS: dict[str, Part] = {
    name: part
    for part, names in {
        Part.QUESTION: "question, questions, query, user question, user query, current question, new question, "
        "final question, actual question, my question, the question, q, task, problem, exercise, request, user "
        "request, user, human, customer, user input, user message, message, input, prompt, student question, "
        "customer question, question to answer, instruction",
        Part.ANSWER: "answer, answers, a, response, assistant, output, solution, ai, bot, final answer, your "
        "answer, the answer, correct answer, expected answer, expected output, result, reply, helpful answer, "
        "agent, thought",
        Part.MATERIAL: "context, contexts, passage, passages, document, documents, doc, docs, article, text, "
        "background, background information, context information, source, sources, reference text, reference, "
        "references, excerpt, excerpts, content, transcript, email, mail, data, search results, search result, "
        "results, retrieved documents, retrieved context, retrieved passages, snippet, snippets, chunk, chunks, "
        "knowledge, knowledge base, facts, page content, paragraph, story, report, observation, observations, "
        "tool output, history, chat history, conversation history, conversation, previous conversation, "
        "information, relevant information, additional context, additional information, supporting text, source "
        "text, file, files, web page, article text, memory",
        Part.INSTRUCTION: "instructions, rules, guidelines, note, notes, system, system prompt, role, persona, "
        "format, output format, response format, answer format, constraints, style, tone, requirements, goal, "
        "important, hint, today, date, current date, language",
    }.items()
    for name in names.split(", ")
}
# `## Context`, `**Question:**`, `[QUERY 2]`, `Document 1: ...`; every repetition has a limit
_LABEL = re.compile(r"([#*<\[(={ -]{0,6})([A-Za-z][A-Za-z _-]{0,30})(?: ?#?\d{1,3})?([\]*)>}= ]{0,5})(:?)[* ]{0,3}")
_LABEL_CHARACTERS = 48  # before the colon of a label, at most
_HEADING_CHARACTERS = 50  # of a label without a colon, at most
_HEADING_STARTS, _HEADING_ENDS = tuple("#*<[(={ -"), tuple("]*)>}= ")  # a heading has one of them
_TAG_STARTS = ("<", "[")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z_-]{0,30})(?: [^<>]{0,80})?>|\[(/?)([A-Z][A-Z_]{0,30})\]")
_QUOTE_MARKS = ('"""', "'''")


def split_sections(text: str) -> list[tuple[Part, str]]:
    """Cut a normalise text at its labels, tags and quotes."""
    lines = _separate_tags(text).split("\n")
    quote_marks = [mark for mark in _QUOTE_MARKS if mark in text]
    quote_marks = [mark for mark in quote_marks if sum(line.startswith(mark) for line in lines) > 1]
    sections: list[tuple[Part, list[str]]] = [(Part.FREE, [])]
    outer: Part | None = None  # the part around a quote; None outside of quotes
    for at, line in enumerate(lines):
        if line.startswith("```"):
            continue  # code belongs to the question; its fence does not
        mark = line[:3]
        if mark in quote_marks:
            sections.append((Part.MATERIAL if outer is None else Part.FREE, [line[3:].removesuffix(mark)]))
            outer = sections[-2][0] if outer is None else None
            continue
        label = None if outer is not None else _read_label(line, lines, at)
        if label is None:
            sections[-1][1].append(line)
        else:
            sections.append((label[0], [label[1]]))
    joined = [(part, "\n".join(body).strip()) for part, body in sections]
    return [(part, body) for part, body in joined if body or part is not Part.FREE] or [(Part.FREE, text)]


def _separate_tags(text: str) -> str:
    """The text with each known tag on a line of its own."""

    def separated(match: re.Match[str]) -> str:
        name = (match[2] or match[4]).lower().replace("_", " ")
        return f"\n{match[0]}\n" if name in _LABELS else match[0]

    return _TAG.sub(separated, text) if "<" in text or "[" in text else text


def _read_label(line: str, lines: Sequence[str], at: int) -> tuple[Part, str] | None:
    """The part that a line begins, and the rest of the line; None if the line has no label."""
    tag = _TAG.fullmatch(line) if line.startswith(_TAG_STARTS) else None
    if tag is not None:
        part = _LABELS.get((tag[2] or tag[4]).lower().replace("_", " "))
        return None if part is None else (Part.FREE if tag[1] or tag[3] else part, "")
    label = _LABEL.match(line) if _may_be_label(line) else None
    if label is None:
        return None
    before, name, after, colon = label.groups()
    rest = line[label.end() :]
    is_heading = bool(before.strip() or after.strip()) and not rest
    part = _LABELS.get(name.strip().lower().replace("_", " "))
    if part is None or not (colon or is_heading):
        return None
    if name.strip() == "A" and any(other.startswith(("B:", "B.", "B)")) for other in lines[at + 1 : at + 4]):
        return None  # an option of a multiple-choice question
    return part, rest.strip(" *")


def _may_be_label(line: str) -> bool:
    """Whether a line has what every label has; most lines have not, which takes no expression to see."""
    if ":" in line[:_LABEL_CHARACTERS]:
        return True
    return len(line) <= _HEADING_CHARACTERS and (line.startswith(_HEADING_STARTS) or line.endswith(_HEADING_ENDS))
