"""Removes what surrounds a question in its own sentences: greeting, thanks, signature and general instructions."""

from __future__ import annotations

import re

_MAX_SENTENCES = 6  # of courtesy and instructions that are removed at either end
_MAX_THANKS_CHARACTERS = 60  # at the end of a text, where thanks are looked for
_MAX_SIGNATURE_LINES = 3
_MAX_SIGNATURE_CHARACTERS = 40  # of a line of a signature
_QUOTATION_MARKS = ("**", '"', "'", "`", "*", "_")
_SENTENCE_END = re.compile(r"[.!?:。！？\n](?:(?<=\n)\n*|[ \n]+)")  # the engine searches fast for the first character

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


def strip_courtesy(text: str) -> str:
    """The text without greeting, thanks, signature and general instructions; "" if nothing else remains."""
    greeting = _GREETING.match(text)
    body = _strip_signature(text[greeting.end() :] if greeting else text)
    starts = [0, *(end.end() for end in _SENTENCE_END.finditer(body))]
    ends = [*starts[1:], len(body)]
    first, last = 0, len(starts)
    while first < min(last, _MAX_SENTENCES) and _is_removable(body[starts[first] : ends[first]]):
        first += 1
    keep = first + (first < _MAX_SENTENCES)  # the first sentence that remains was looked at
    while last > max(keep, len(starts) - _MAX_SENTENCES) and _is_removable(body[starts[last - 1] : ends[last - 1]]):
        last -= 1
    return strip_quotation_marks(body[starts[first] : ends[last - 1]].strip()) if first < last else ""


def _is_removable(sentence: str) -> bool:
    stripped = sentence.strip()
    return not stripped or _COURTESY.match(stripped) is not None or _INSTRUCTION.match(stripped) is not None


def _strip_signature(text: str) -> str:
    """The text up to a closing formula that few short lines follow, and without thanks at its end."""
    lines = text.split("\n")
    for at in range(max(len(lines) - _MAX_SIGNATURE_LINES - 1, 1), len(lines)):
        below = [line for line in lines[at + 1 :] if line]
        if _CLOSING.match(lines[at]) and all(len(line) <= _MAX_SIGNATURE_CHARACTERS for line in below):
            text = "\n".join(lines[:at])
            break
    thanks = _THANKS.search(text, max(len(text) - _MAX_THANKS_CHARACTERS, 0))
    return text[: thanks.start()] if thanks else text


def strip_quotation_marks(text: str) -> str:
    """The text without quotation marks or emphasis around all of it.

    >>> strip_quotation_marks('**"Who wrote Faust?"**')
    'Who wrote Faust?'
    """
    if text[:1] not in _QUOTATION_MARKS:
        return text
    for mark in _QUOTATION_MARKS:
        inner = text[len(mark) : -len(mark)]
        if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark) and mark not in inner:
            text = inner.strip()
    return text
