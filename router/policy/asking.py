"""What a text asks, apart from what surrounds it: material, worked examples, instructions and courtesy.

The parts are found by structure: labels such as `Question:`, tags, quotes, and a short question beside long material.
Each step reads every character a bounded number of times, whatever the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from router.policy.text import normalised

MIN_MATERIAL = 500  # characters: a question beside less is read together with it
MAX_ASKED = 400  # characters of an unlabelled question in a line beside material
MAX_PARAGRAPH = 1_500  # and of one in a paragraph of its own
MIN_ASKED_WORDS = 4
_MOST_PEELED = 6  # sentences of courtesy and instructions at either end


_REQUESTS = frozenset(  # first words of what is to be done
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


class Part(StrEnum):
    """What a section of a text is."""

    FREE = "free"  # no label says what it is
    QUESTION = "question"
    ANSWER = "answer"
    MATERIAL = "material"
    INSTRUCTION = "instruction"


@dataclass(frozen=True, slots=True)
class Asked:
    """A text, split."""

    question: str  # what is asked; the whole text where nothing else was found
    material: str = ""  # what it is asked about
    examples: int = 0  # questions that are shown with their answers


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
# `## Context`, `**Question:**`, `[QUERY 2]`, `Document 1: ...`; every repetition is bounded
_LABEL = re.compile(r"([#*<\[(={ -]{0,6})([A-Za-z][A-Za-z _-]{0,30})(?: ?#?\d{1,3})?([\]*)>}= ]{0,5})(:?)[* ]{0,3}")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z_-]{0,30})(?: [^<>]{0,80})?>|\[(/?)([A-Z][A-Z_]{0,30})\]")
_OPTION = re.compile(r"[(\[]?[A-Za-j1-9][).:\]] ?\S|[-*•] ")
_SENTENCE_END = re.compile(r"(?<=[.!?:。！？])[ \n]+|\n+")
_WRAPS = ("**", '"', "'", "`", "*", "_")
_QUOTE_MARKS = ('"""', "'''")

_GREETING = re.compile(
    r"(?:hi|hiya|hello|hey|heya|howdy|dear|greetings|good (?:morning|afternoon|evening|day))"
    r"(?: (?:there|all|everyone|everybody|team|folks|assistant|bot|chatgpt|gpt|ai|sir|madam|sir or madam|again|"
    r"[A-Z][a-z]{1,20})){0,2} ?[,!.:;-]{1,3}[ \n]*",
    re.IGNORECASE,
)
_COURTESY = re.compile(
    r"(?:(?:many |thank|thanks|thx|cheers|ty\b|much appreciated|i(?:'d| would)? appreciate|appreciate|"
    r"(?:best|kind|warm|warmest|many) (?:regards|wishes)|regards|sincerely|yours|have a (?:nice|great|good)|"
    r"looking forward|hope (?:you|this)|i hope (?:you|this)|(?:hi|hello|hey|greetings)\b|good (?:morning|afternoon|"
    r"evening|day)|please help|help(?: me)?(?: please)?[.!]|(?:could|can|would) you (?:please )?help|"
    r"i (?:have|'ve got|got) (?:a|one|another|this) (?:quick |short |simple )?question|(?:a )?quick question|"
    r"(?:here is|here's|this is) (?:my|the|a) (?:question|task|problem)|let me know|sorry (?:to|for)|"
    r"one (?:more )?question|i need (?:some |your )?help|in advance|ok(?:ay)?[.,!])[^\n]{0,80})$",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"(?:(?:best|kind|warm|warmest|many)(?: regards| wishes)?|regards|sincerely|"
    r"yours(?: (?:sincerely|faithfully|truly))?|cheers|thanks|thank you|thx)[ ,.!-]{0,3}(?:[A-Z][a-z]{1,20})?$",
    re.IGNORECASE,
)
_MAX_THANKS = 60  # characters at the end of a text in which thanks are looked for
_THANKS = re.compile(
    r"(?<![a-z])(?:many thanks|thanks|thank you|thx|cheers|ty)(?: so much| very much| a lot| in advance| again|"
    r" for (?:your|the|any) help){0,3} ?[.!:)]{0,3}$",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"(?:(?:you are|you're|act as|pretend|imagine you are|as an? (?:helpful|expert|experienced|senior|"
    r"ai\b|professional|knowledgeable)|your (?:role|job|task) is to (?:answer|help|assist)) [^\n]{0,200}|"
    r"(?:please )?(?:answer|address|solve|respond to|reply to|consider|read|look at) (?:the |this |my |these |each |"
    r"all |user'?s? |above |below |following |next |last |final |given )*(?:question|query|problem|task|request|"
    r"message|exercise)s?\b[^\n]{0,120}|"
    r"(?:please )?(?:answer|respond|reply|be|keep (?:it|your answer|the answer|your response)) (?:as )?(?:very |brief|"
    r"concise|short|precise|accurate|honest|polite|friendl|helpful|clear|careful|truthful|direct|simple|in (?:one|two|"
    r"three|a few|at most|\d|the same language|english|plain|your own|full)|like an? |only if|based on|"
    r"using (?:the|only)|with care|to the best)[^\n]{0,120}|"
    r"(?:please )?(?:use|using|given|based on|read|refer to|consider|considering|from) (?:only )?(?:the |this |these )?"
    r"(?:following|provided|given|above|below|context|passage|document|retrieved|supplied)s?\b[^\n]{0,160}|"
    r"(?:let's |please )?(?:think|reason|work|go) (?:it |this |through )?(?:step[ -]by[ -]step|carefully|through|hard|"
    r"slowly|aloud)[^\n]{0,80}|take a deep breath[^\n]{0,60}|take your time[^\n]{0,60}|"
    r"(?:do not|don't|never) (?:make (?:things|anything|it|stuff) up|hallucinate|guess|invent|apologi[sz]e|mention|"
    r"reveal|repeat)[^\n]{0,120}|"
    r"if (?:you (?:do not|don't|cannot|can't|are not|aren't)|the (?:answer|context|passage|document)|unsure|in doubt)"
    r"[^\n]{0,160}|"
    r"(?:give|provide|write|show) (?:me |us )?(?:a |an |your |the |only the )?(?:short|brief|concise|precise|accurate|"
    r"direct|clear|detailed|correct|final|best|complete) (?:answer|response|reply|explanation)[^\n]{0,100}|"
    r"(?:make sure|ensure|remember|note|be sure)[ :][^\n]{0,120}|"
    r"(?:a |the )?(?:question|context|task|text|passage|input|query)s? (?:is|are|follows|comes|below|above)"
    r"[^\n]{0,60}|(?:the )?following is[^\n]{0,80}|here (?:is|are) (?:the|some) (?:context|example|passage|document|"
    r"text|information|background|relevant)[^\n]{0,80}|below (?:is|are)[^\n]{0,80}|no (?:preamble|explanation|"
    r"introduction)[^\n]{0,40})$",
    re.IGNORECASE,
)


def split(text: str) -> Asked:
    r"""Split a text into what is asked and what surrounds it.

    >>> split("Context:\nBonn lies on the Rhine.\n\nQuestion: Where does Bonn lie?\nAnswer:").question
    'Where does Bonn lie?'
    >>> split("Q: 1+1?\nA: 2\n\nQ: 2+3?\nA:")
    Asked(question='2+3?', material='', examples=1)
    >>> split("Hi! You are a helpful assistant. Who wrote Faust? Thanks").question
    'Who wrote Faust?'
    """
    clean = normalised(text)
    sections = _sections(clean)
    if len(sections) == 1 and sections[0][0] is Part.FREE:
        return _without_labels(sections[0][1])
    found = _by_labels(sections, clean)
    inner = _without_labels(found.question)
    return Asked(inner.question, "\n".join(filter(None, (found.material, inner.material))), found.examples)


def is_material(text: str) -> bool:
    """Whether a text is material and nothing else, such as the result of a tool that is sent as a turn.

    >>> is_material("Observation: 17 rows were found."), is_material("Question: how deep?")
    (True, False)
    """
    return {part for part, _ in _sections(normalised(text))} == {Part.MATERIAL}


def _sections(text: str) -> list[tuple[Part, str]]:
    """The text cut at its labels, tags and quotes, each section with its part."""
    lines = _tags_apart(text).split("\n")
    quoting = [mark for mark in _QUOTE_MARKS if mark in text]
    quoting = [mark for mark in quoting if sum(line.startswith(mark) for line in lines) > 1]
    sections: list[tuple[Part, list[str]]] = [(Part.FREE, [])]
    outside: Part | None = None  # the part that a quote stands in, while inside of one
    for at, line in enumerate(lines):
        if line.startswith("```"):
            continue  # code is what is asked about; its fence is not
        mark = line[:3]
        if mark in quoting:
            sections.append((Part.MATERIAL if outside is None else Part.FREE, [line[3:].removesuffix(mark)]))
            outside = sections[-2][0] if outside is None else None
            continue
        label = None if outside is not None else _label(line, lines, at)
        if label is None:
            sections[-1][1].append(line)
        else:
            sections.append((label[0], [label[1]]))
    joined = [(part, "\n".join(found).strip()) for part, found in sections]
    return [(part, body) for part, body in joined if body or part is not Part.FREE] or [(Part.FREE, text)]


def _tags_apart(text: str) -> str:
    """Tags of known names on lines of their own."""

    def apart(match: re.Match[str]) -> str:
        name = (match[2] or match[4]).lower().replace("_", " ")
        return f"\n{match[0]}\n" if name in _LABELS else match[0]

    return _TAG.sub(apart, text) if "<" in text or "[" in text else text


def _label(line: str, lines: Sequence[str], at: int) -> tuple[Part, str] | None:
    """The part that a line begins, and the rest of the line; None where it begins none."""
    tag = _TAG.fullmatch(line)
    if tag is not None:
        part = _LABELS.get((tag[2] or tag[4]).lower().replace("_", " "))
        return None if part is None else (Part.FREE if tag[1] or tag[3] else part, "")
    found = _LABEL.match(line)
    if found is None:
        return None
    before, name, after, colon = found.groups()
    rest = line[found.end() :]
    stands_out = bool(before.strip() or after.strip()) and not rest
    part = _LABELS.get(name.strip().lower().replace("_", " "))
    if part is None or not (colon or stands_out):
        return None
    if name.strip() == "A" and any(other.startswith(("B:", "B.", "B)")) for other in lines[at + 1 : at + 4]):
        return None  # an option
    return part, rest.strip(" *")


def _by_labels(sections: list[tuple[Part, str]], text: str) -> Asked:
    """What is asked in a text whose parts are labelled."""
    material = [body for part, body in sections if part is Part.MATERIAL and body]
    questions = [at for at, (part, body) in enumerate(sections) if part is Part.QUESTION and body]
    answers = [at for at, (part, body) in enumerate(sections) if part is Part.ANSWER and body]
    if questions:
        last = questions[-1]
        examples = sum(1 for at in answers if at < last)
        around = [body for part, body in sections if part is Part.FREE and len(body) >= MIN_MATERIAL]
        return Asked(_essence(sections[last][1]), "\n".join([*material, *around]), examples)
    free = [body for part, body in sections if part is Part.FREE and body]
    question = _essence("\n".join(free), "")
    if question:
        return Asked(question, "\n".join(material), len(answers))
    if material:
        *before, last_part = material[-1].split("\n\n") if "\n\n" in material[-1] else material[-1].split("\n")
        if before and len(last_part) <= MAX_ASKED:
            return Asked(_essence(last_part), "\n".join([*material[:-1], *before]), len(answers))
    return Asked(_essence("\n".join(body for _, body in sections if body) or text))


def _without_labels(text: str) -> Asked:
    """What is asked in a text without labels: all of it, or a question that stands before or after long material."""
    asked = _essence(text)
    if len(asked) < MIN_MATERIAL or "\n" not in asked:
        return Asked(asked)
    for between, longest in (("\n\n", MAX_PARAGRAPH), ("\n", MAX_ASKED)):
        parts = [part for part in asked.split(between) if part]
        end = len(parts)
        while end > 1 and _OPTION.match(parts[end - 1]):
            end -= 1
        question, before = between.join(parts[end - 1 :]), between.join(parts[: end - 1])
        if len(before) >= MIN_MATERIAL and _is_question(parts[end - 1], longest):
            return Asked(question, before)
        question, after = parts[0], between.join(parts[1:])
        if len(after) >= MIN_MATERIAL and question[-1] in ":?." and _is_question(question, MAX_ASKED):
            return Asked(question, after)
    return Asked(asked)


def _is_question(text: str, longest: int) -> bool:
    """Whether a part of a text asks for something: it has a question mark, or begins with what is to be done."""
    words = text.split(None, MIN_ASKED_WORDS)
    if len(text) > longest or len(words) < MIN_ASKED_WORDS:
        return False
    return "?" in text or words[0].lower().strip(",.:") in _REQUESTS


def _essence(text: str, otherwise: str | None = None) -> str:
    """The text without greeting, thanks, signature and general instructions; `otherwise`, or all, if none is left."""
    greeting = _GREETING.match(text)
    body = _without_signature(text[greeting.end() :] if greeting else text)
    starts = [0, *(found.end() for found in _SENTENCE_END.finditer(body))]
    first, last = 0, len(starts)
    ends = [*starts[1:], len(body)]
    while first < min(last, _MOST_PEELED) and _is_around(body[starts[first] : ends[first]]):
        first += 1
    while last > max(first, len(starts) - _MOST_PEELED) and _is_around(body[starts[last - 1] : ends[last - 1]]):
        last -= 1
    left = body[starts[first] : ends[last - 1]].strip() if first < last else ""
    return unwrapped(left) or (text if otherwise is None else otherwise)


def _is_around(sentence: str) -> bool:
    said = sentence.strip()
    return not said or _COURTESY.match(said) is not None or _INSTRUCTION.match(said) is not None


def _without_signature(text: str) -> str:
    """The text up to a closing formula with at most three short lines under it, and without thanks at its very end."""
    lines = text.split("\n")
    for at in range(max(len(lines) - 4, 1), len(lines)):
        below = [line for line in lines[at + 1 :] if line]
        if _CLOSING.match(lines[at]) and all(len(line) <= 40 for line in below):
            text = "\n".join(lines[:at])
            break
    cut = max(len(text) - _MAX_THANKS, 0)
    thanks = _THANKS.search(text, cut)
    return text[: thanks.start()] if thanks else text


def unwrapped(text: str) -> str:
    """The text without quotes, stars or brackets around all of it.

    >>> unwrapped('**"Who wrote Faust?"**')
    'Who wrote Faust?'
    """
    if text[:1] not in _WRAPS:
        return text
    for mark in _WRAPS:
        inner = text[len(mark) : -len(mark)]
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark) and mark not in inner:
            text = inner.strip()
    return text
