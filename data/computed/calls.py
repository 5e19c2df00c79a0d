"""Requests to be met by calling tools: one, the right one of several, several at once, or none."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random
from typing import Any

from computed.draft import PEOPLE, TOWNS, Draft, Maker

Wish = tuple[str, dict[str, Any]]  # what the user says, and the call it asks for


def _tool(name: str, description: str, /, *optional: str, **parameters: Any) -> dict[str, Any]:
    kinds = {
        key: value if isinstance(value, dict) else {"type": value[0], "description": value[1]}
        for key, value in parameters.items()
    }
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": kinds,
                "required": [key for key in kinds if key not in optional],
            },
        },
    }


_WEATHER = _tool(
    "get_forecast",
    "Weather forecast of a town for one day.",
    "units",
    town=("string", "Name of the town"),
    day=("string", "Day as YYYY-MM-DD"),
    units={"type": "string", "enum": ["metric", "imperial"], "description": "Default: metric"},
)
_REMINDER = _tool(
    "set_reminder",
    "Remind the user at a time today.",
    text=("string", "What to be reminded of, one or two words, as the user says it"),
    time=("string", "24-hour clock, HH:MM"),
)
_TRANSFER = _tool(
    "transfer_money",
    "Transfer money from the user's account to a contact.",
    "reference",
    to=("string", "First name of the contact"),
    amount=("number", "Amount in the account's currency"),
    reference=("string", "Text on the statement"),
)
_LIGHT = _tool(
    "set_light",
    "Switch a room's light and set its brightness.",
    room={"type": "string", "enum": ["kitchen", "hall", "bedroom", "office"]},
    brightness=("integer", "0 (off) to 100 per cent"),
)
_TRAIN = _tool(
    "find_trains",
    "Search for trains between two towns.",
    "after",
    origin=("string", "Town of departure"),
    destination=("string", "Town of arrival"),
    day=("string", "Day as YYYY-MM-DD"),
    after=("string", "Earliest departure, HH:MM"),
)
_BOOK = _tool(
    "search_library",
    "Search the catalogue of the public library. At least one of the two is given.",
    "author",
    "title",
    author=("string", "Author's name"),
    title=("string", "Words of the title"),
)
_DISTANCE = _tool(
    "convert_length",
    "Convert a length from one unit to another.",
    value=("number", "The length"),
    source={"type": "string", "enum": ["m", "km", "mi", "ft"]},
    target={"type": "string", "enum": ["m", "km", "mi", "ft"]},
)
_DECOYS = {
    "get_forecast": _tool("get_tides", "High and low tide of a harbour.", harbour=("string", "Harbour")),
    "set_reminder": _tool("start_timer", "Start a countdown.", minutes=("integer", "Length in minutes")),
    "transfer_money": _tool(
        "request_money", "Ask a contact for money.", person=("string", "Contact"), amount=("number", "Amount")
    ),
    "set_light": _tool(
        "set_heating", "Set a room's temperature.", room=("string", "Room"), celsius=("number", "Degrees")
    ),
    "find_trains": _tool(
        "find_buses", "Search for buses between two towns.", origin=("string", "From"), destination=("string", "To")
    ),
}


def _call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def _day(rng: Random) -> str:
    return (date(2026, 1, 1) + timedelta(days=rng.randint(0, 364))).isoformat()


def _clock(rng: Random) -> str:
    return f"{rng.randint(6, 22):02d}:{rng.choice((0, 10, 15, 30, 45)):02d}"


def _weather(rng: Random) -> Wish:
    town, day = rng.choice(TOWNS), _day(rng)
    text = rng.choice(
        ("weather in {} on {}", "What will the weather be like in {} on {}?", "Wie wird das Wetter in {} am {}?")
    )
    return text.format(town, day), _call("get_forecast", town=town, day=day, units={"any": ["metric", None]})


def _remind(rng: Random) -> Wish:
    what, when = rng.choice(("dentist", "laundry", "call mum", "trash", "medicine")), _clock(rng)
    text = rng.choice(
        ('Remind me of "{}" at {}', 'set a reminder "{}" for {} please', 'at {1} I need a reminder: "{0}"')
    )
    return text.format(what, when), _call("set_reminder", text=what, time=when)


def _pay(rng: Random) -> Wish:
    who, amount, why = rng.choice(PEOPLE), rng.randint(5, 400), rng.choice(("rent", "pizza", "tickets"))
    text = rng.choice(('Send {} {} with the reference "{}"', 'transfer to {}: {}, reference "{}"'))
    return text.format(who, amount, why), _call("transfer_money", to=who, amount=amount, reference=why)


def _shine(rng: Random) -> Wish:
    room, level = rng.choice(("kitchen", "hall", "bedroom", "office")), rng.choice((0, 10, 40, 75, 100))
    text = f"turn off the light in the {room}" if level == 0 else f"{room} light to {level} %"
    return text, _call("set_light", room=room, brightness=level)


def _ride(rng: Random) -> Wish:
    (here, there), day, when = rng.sample(TOWNS, 2), _day(rng), _clock(rng)
    call = _call("find_trains", origin=here, destination=there, day=day, after=when)
    text = rng.choice(
        ("trains from {} to {} on {}, leaving {} or later", "Necesito un tren de {} a {} el {}, a partir de las {}")
    )
    return text.format(here, there, day, when), call


def _length(rng: Random) -> Wish:
    source, target = rng.sample(("m", "km", "mi", "ft"), 2)
    names = {"m": "metres", "km": "kilometres", "mi": "miles", "ft": "feet"}
    value = rng.randint(2, 900)
    call = _call("convert_length", value=value, source=source, target=target)
    return f"convert {value} {names[source]} to {names[target]} with the tool", call


_WISHES: tuple[tuple[dict[str, Any], Callable[[Random], Wish]], ...] = (
    *((_WEATHER, _weather), (_REMINDER, _remind), (_TRANSFER, _pay), (_LIGHT, _shine), (_TRAIN, _ride)),
    (_DISTANCE, _length),
)
_SYSTEMS = ("", "You are a household assistant. Use the tools; do not ask back.", "Call tools where they fit.")


def _language(text: str) -> str:
    return "de" if text.startswith("Wie ") else "es" if text.startswith("Necesito") else "en"


def simple(rng: Random, level: int) -> Draft:
    """One tool, one call."""
    tool, wish = _WISHES[level * 2 + rng.randrange(2)]
    text, call = wish(rng)
    return Draft(text, call, "tool_call", _language(text), rng.choice(_SYSTEMS), tools=(tool,))


def multiple(rng: Random, level: int) -> Draft:
    """One call; the right tool has to be chosen among several, some of them alike."""
    tool, wish = rng.choice(_WISHES[:5])
    others = [other for other, _ in _WISHES if other is not tool]
    tools = [tool, _DECOYS[tool["function"]["name"]], *rng.sample(others, 1 + level), *([_BOOK] if level else [])]
    rng.shuffle(tools)
    text, call = wish(rng)
    return Draft(text, call, "tool_call", _language(text), rng.choice(_SYSTEMS), tools=tuple(tools))


def parallel(rng: Random, level: int) -> Draft:
    """Several calls of one tool."""
    tool, wish = _WISHES[rng.choice((0, 1, 3))]
    wanted: dict[str, Wish] = {}
    while len(wanted) < 2 + level:
        text, call = wish(rng)
        wanted.setdefault(str(call["arguments"].get("room", text)), (text, call))
    texts, calls = [text for text, _ in wanted.values()], [call for _, call in wanted.values()]
    joined = rng.choice(("; ", ", and ", "\n")).join(texts)
    question = rng.choice(("{}", "Please do all of this at once:\n{}")).format(joined)
    return Draft(question, calls, "tool_call", _language(texts[0]), rng.choice(_SYSTEMS), tools=(tool,))


def parallel_multiple(rng: Random, level: int) -> Draft:
    """Several calls of several tools."""
    chosen = rng.sample(_WISHES, 2 + level)
    wanted = [wish(rng) for _, wish in chosen]
    tools = [tool for tool, _ in chosen]
    tools.append(_DECOYS["set_reminder"] if _BOOK in tools else _BOOK)
    rng.shuffle(tools)
    question = rng.choice((". Then ", "; also ", "\n- ")).join(text for text, _ in wanted)
    language = next((found for text, _ in wanted if (found := _language(text)) != "en"), "en")
    return Draft(
        question, [call for _, call in wanted], "tool_call", language, rng.choice(_SYSTEMS), tools=tuple(tools)
    )


def none_fits(rng: Random, level: int) -> Draft:
    """Tools are there, and none of them helps: a right answer calls none."""
    tools = [tool for tool, _ in rng.sample(_WISHES, 1 + level)]
    a, b = rng.randint(3, 40), rng.randint(3, 40)
    question = rng.choice(
        (
            f"what is {a} plus {b}?",
            f"Write one sentence about {rng.choice(TOWNS)} Castle in winter.",
            f"Give me a rhyme on the name {rng.choice(PEOPLE)}.",
            f"Name {2 + level} colours that go with teal.",
            f"Explain to {rng.choice(PEOPLE)}, who is {4 + level}, what a receipt is.",
        )
    )
    return Draft(question, [], "tool_call", tools=tuple(tools))


KINDS: dict[str, tuple[Maker, ...]] = {
    "tool-use/simple": (simple,),
    "tool-use/multiple": (multiple,),
    "tool-use/parallel": (parallel,),
    "tool-use/parallel_multiple": (parallel_multiple,),
    "tool-use/none-fits": (none_fits,),
}
