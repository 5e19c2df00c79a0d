"""Requests that need tool calls: one call, the right tool of several, several calls, or no call."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from calibration.generation.draft import PEOPLE, TOWNS, Draft, Maker
from calibration.generation.tools import DECOYS, WISHES, Tool, Wish, name_of

_SYSTEMS = ("", "You are a household assistant. Use the tools; do not ask back.", "Call tools where they fit.")
_FOREIGN = {"Wie ": "de", "Ticket bitte": "de", "Necesito": "es", "Je voudrais": "fr"}


def _language(*texts: str) -> str:
    """The first language other than English among the texts; "en" if there is none."""
    found = (language for text in texts for start, language in _FOREIGN.items() if text.startswith(start))
    return next(found, "en")


def _simple(tool: Tool, wish: Callable[[Random], Wish]) -> Maker:
    """One tool and one call; at harder levels with an irrelevant remark."""

    def make(rng: Random, level: int) -> Draft:
        text, call = wish(rng)
        name = rng.choice(PEOPLE)
        around = (
            ("{}",),
            ("{}", "hey, {}", "{} - thanks!"),
            (f"{name} is nagging me about this since yesterday, so: {{}}", f"{{}}\n\n(sent from {name}'s phone)"),
        )[level]
        question = rng.choice(around).format(text)
        return Draft(question, call, "tool_call", _language(text), rng.choice(_SYSTEMS), tools=(tool,))

    return make


def _multiple(tool: Tool, wish: Callable[[Random], Wish]) -> Maker:
    """One call of the right tool among several, one of which is similar."""

    def make(rng: Random, level: int) -> Draft:
        others = [other for other, _ in WISHES if other is not tool]
        tools = [tool, DECOYS[name_of(tool)], *rng.sample(others, 1 + 2 * level)]
        rng.shuffle(tools)
        text, call = wish(rng)
        return Draft(text, call, "tool_call", _language(text), rng.choice(_SYSTEMS), tools=tuple(tools))

    return make


def _parallel(tool: Tool, wish: Callable[[Random], Wish]) -> Maker:
    """Several calls of one tool."""

    def make(rng: Random, level: int) -> Draft:
        wanted: dict[str, Wish] = {}
        while len(wanted) < 2 + level:
            text, call = wish(rng)
            wanted.setdefault(str(call["arguments"].get("room", text)), (text, call))
        texts, calls = [text for text, _ in wanted.values()], [call for _, call in wanted.values()]
        question = rng.choice(
            (
                "; ".join(texts),
                " And also: ".join(texts),
                "Please do all of this at once:\n" + "\n".join(texts),
                "\n".join(f"{place}. {text}" for place, text in enumerate(texts, 1)),
            )
        )
        return Draft(question, calls, "tool_call", _language(*texts), rng.choice(_SYSTEMS), tools=(tool,))

    return make


def parallel_multiple(rng: Random, level: int) -> Draft:
    """Several calls of several tools, and one tool that is not needed."""
    chosen = rng.sample(WISHES, 3 + level)
    tools = [tool for tool, _ in chosen]
    rng.shuffle(tools)
    wanted = [wish(rng) for _, wish in chosen[1:]]
    texts = [text for text, _ in wanted]
    question = rng.choice(
        (". Then ".join(texts), "; also ".join(texts), "My list for now:\n- " + "\n- ".join(texts), "\n".join(texts))
    )
    calls = [call for _, call in wanted]
    return Draft(question, calls, "tool_call", _language(*texts), rng.choice(_SYSTEMS), tools=tuple(tools))


_WITHOUT_TOOLS = (
    "what is {a} plus {b}?",
    "Write {few} sentences about {town} Castle as {who} saw it in winter.",
    "Give me {few} rhymes on the name {who}.",
    "Name {few} colours that go with {colour}.",
    "Explain to {who}, who is {few}, what a receipt is.",
    "Is {a} an even number?",
    "How do I politely tell {who} that I can't come to {town}?",
    "Translate 'good night, {who}, see you in {town}' into French.",
    "Suggest {few} titles for a diary of a year in {town}.",
    "Thanks, {who} and I are happy with what you found on {town}!",
)


def _none_fits(template: str) -> Maker:
    """No tool fits the request, so a right answer calls none."""

    def make(rng: Random, level: int) -> Draft:
        tools = tuple(tool for tool, _ in rng.sample(WISHES, 1 + 2 * level))
        said = {
            "a": rng.randint(3, 400),
            "b": rng.randint(3, 40),
            "few": rng.randint(3, 6),
            "town": rng.choice(TOWNS),
            "who": rng.choice(PEOPLE),
            "colour": rng.choice(("teal", "mustard", "lilac", "rust", "olive", "navy", "coral", "grey")),
        }
        question = template.format(**said)
        return Draft(question, [], "tool_call", system=rng.choice(("", _SYSTEMS[2])), tools=tools)

    return make


KINDS: dict[str, tuple[Maker, ...]] = {
    "tool-use/simple": tuple(_simple(*each) for each in WISHES),
    "tool-use/multiple": tuple(_multiple(*each) for each in WISHES),
    "tool-use/parallel": tuple(_parallel(*each) for each in WISHES),
    "tool-use/parallel_multiple": (parallel_multiple,),
    "tool-use/none-fits": tuple(map(_none_fits, _WITHOUT_TOOLS)),
}
