"""Tools that an assistant may call, and user messages that request a call."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from random import Random
from typing import Any

from calibration.generation.draft import PEOPLE, TOWNS

Tool = dict[str, Any]
Wish = tuple[str, Tool]  # a user message, and the tool call that it requests


def _tool(name: str, description: str, /, *optional: str, **parameters: Any) -> Tool:
    kinds = {
        key: value if isinstance(value, dict) else {"type": value[0], "description": value[1]}
        for key, value in parameters.items()
    }
    required = [key for key in kinds if key not in optional]
    schema = {"type": "object", "properties": kinds, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


def name_of(tool: Tool) -> str:
    """The name of a tool."""
    return str(tool["function"]["name"])


def _call(name: str, **arguments: Any) -> Tool:
    return {"name": name, "arguments": arguments}


def _day(rng: Random) -> str:
    return (date(2026, 1, 1) + timedelta(days=rng.randint(0, 364))).isoformat()


def _clock(rng: Random) -> str:
    return f"{rng.randint(6, 22):02d}:{rng.choice((0, 10, 15, 30, 45)):02d}"


_WEATHER = _tool(
    "get_forecast",
    "Weather forecast of a town for one day.",
    "units",
    town=("string", "Name of the town"),
    day=("string", "Day as YYYY-MM-DD"),
    units={"type": "string", "enum": ["metric", "imperial"], "description": "Default: metric"},
)


def _weather(rng: Random) -> Wish:
    town, day = rng.choice(TOWNS), _day(rng)
    text = rng.choice(
        (
            "weather in {} on {}",
            "What will the weather be like in {} on {}?",
            "Wie wird das Wetter in {} am {}?",
            "Do I need an umbrella in {} on {}?",
        )
    )
    return text.format(town, day), _call("get_forecast", town=town, day=day, units={"any": ["metric", None]})


_REMINDER = _tool(
    "set_reminder",
    "Remind the user at a time today.",
    text=("string", "What to be reminded of, in the words that the user put in quotes"),
    time=("string", "24-hour clock, HH:MM"),
)


def _remind(rng: Random) -> Wish:
    what, when = rng.choice(("dentist", "laundry", "call mum", "trash", "medicine")), _clock(rng)
    text = rng.choice(
        ('Remind me of "{}" at {}', 'set a reminder "{}" for {} please', 'at {1} I need a reminder: "{0}"')
    )
    return text.format(what, when), _call("set_reminder", text=what, time=when)


_TRANSFER = _tool(
    "transfer_money",
    "Transfer money from the user's account to a contact.",
    "reference",
    to=("string", "First name of the contact"),
    amount=("number", "Amount in the account's currency"),
    reference=("string", "Text on the statement"),
)


def _pay(rng: Random) -> Wish:
    who, amount, why = rng.choice(PEOPLE), rng.randint(5, 400), rng.choice(("rent", "pizza", "tickets"))
    text = rng.choice(('Send {} {} with the reference "{}"', 'transfer to {}: {}, reference "{}"'))
    return text.format(who, amount, why), _call("transfer_money", to=who, amount=amount, reference=why)


_LIGHT = _tool(
    "set_light",
    "Switch a room's light and set its brightness.",
    room={"type": "string", "enum": ["kitchen", "hall", "bedroom", "office"]},
    brightness=("integer", "0 (off) to 100 per cent"),
)


def _shine(rng: Random) -> Wish:
    room, level = rng.choice(("kitchen", "hall", "bedroom", "office")), rng.choice((0, 10, 40, 75, 100))
    text = f"turn off the light in the {room}" if level == 0 else f"{room} light to {level} %"
    return text, _call("set_light", room=room, brightness=level)


_TRAIN = _tool(
    "find_trains",
    "Search for trains between two towns.",
    "after",
    origin=("string", "Town of departure"),
    destination=("string", "Town of arrival"),
    day=("string", "Day as YYYY-MM-DD"),
    after=("string", "Earliest departure, HH:MM"),
)


def _ride(rng: Random) -> Wish:
    (here, there), day, when = rng.sample(TOWNS, 2), _day(rng), _clock(rng)
    text = rng.choice(
        (
            "trains from {} to {} on {}, leaving {} or later",
            "Necesito un tren de {} a {} el {}, a partir de las {}",
            "I have to get from {} to {} by rail on {}. I can't leave before {}.",
        )
    )
    call = _call("find_trains", origin=here, destination=there, day=day, after=when)
    return text.format(here, there, day, when), call


_LENGTH = _tool(
    "convert_length",
    "Convert a length from one unit to another.",
    value=("number", "The length"),
    source={"type": "string", "enum": ["m", "km", "mi", "ft"]},
    target={"type": "string", "enum": ["m", "km", "mi", "ft"]},
)


def _length(rng: Random) -> Wish:
    source, target = rng.sample(("m", "km", "mi", "ft"), 2)
    names = {"m": "metres", "km": "kilometres", "mi": "miles", "ft": "feet"}
    value = rng.randint(2, 900)
    call = _call("convert_length", value=value, source=source, target=target)
    return f"convert {value} {names[source]} to {names[target]} with the tool", call


_EVENT = _tool(
    "create_event",
    "Put an event into the user's calendar.",
    title=("string", "Title, in the user's words"),
    day=("string", "Day as YYYY-MM-DD"),
    start=("string", "HH:MM"),
    minutes=("integer", "Length in minutes"),
)


def _event(rng: Random) -> Wish:
    title, day, start = rng.choice(("Choir", "Budget review", "Haircut", "Parents' evening")), _day(rng), _clock(rng)
    minutes = rng.choice((30, 45, 90, 120))
    long = {30: "half an hour", 45: "45 minutes", 90: "an hour and a half", 120: "two hours"}[minutes]
    text = rng.choice(('Put "{}" in my calendar: {} at {}, {}.', '"{}", {}, starts {}, takes {} -> calendar pls'))
    return text.format(title, day, start, long), _call(
        "create_event", title=title, day=day, start=start, minutes=minutes
    )


_TICKET = _tool(
    "open_ticket",
    "Open a ticket for the support team.",
    title=("string", "The title as the user gives it"),
    priority={"type": "string", "enum": ["low", "normal", "urgent"]},
    tags={"type": "array", "items": {"type": "string"}, "description": "In the order named; may be empty"},
)


def _report(rng: Random) -> Wish:
    title = rng.choice(("Printer jams", "VPN drops", "Login loop", "Invoice page blank"))
    priority, tags = rng.choice(("low", "normal", "urgent")), rng.sample(("network", "hardware", "web", "billing"), 2)
    text = rng.choice(
        ('open a ticket "{}", priority {}, tags {} and {}', 'Ticket bitte: "{}", Priorität {}, Schlagwörter {} und {}')
    )
    return text.format(title, priority, *tags), _call("open_ticket", title=title, priority=priority, tags=tags)


_IMAGE = _tool(
    "resize_image",
    "Scale an image file.",
    "keep_ratio",
    file=("string", "Name of the file"),
    width=("integer", "New width in pixels"),
    keep_ratio=("boolean", "Keep the ratio of the sides; default true"),
)


def _resize(rng: Random) -> Wish:
    file, width = f"{rng.choice(('beach', 'logo', 'scan', 'cover'))}{rng.randint(1, 99)}.png", rng.randint(2, 40) * 50
    if rng.random() < 0.5:
        call = _call("resize_image", file=file, width=width, keep_ratio=False)
        return f"make {file} {width} px wide, it may be distorted (do not keep the ratio)", call
    keep = {"any": [True, None]}
    return f"Scale {file} to a width of {width} pixels.", _call("resize_image", file=file, width=width, keep_ratio=keep)


_FOOD = _tool(
    "order_food",
    "Order dishes from the restaurant that the user has saved.",
    "note",
    items={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"dish": {"type": "string"}, "quantity": {"type": "integer"}},
            "required": ["dish", "quantity"],
        },
    },
    note=("string", "Only if the user asks for one"),
)


def _eat(rng: Random) -> Wish:
    dishes = rng.sample(("ramen", "gyoza", "miso soup", "edamame"), 2)
    amounts = [rng.randint(2, 6) for _ in dishes]
    told = [f"{n} {dish}" for n, dish in zip(amounts, dishes, strict=True)]
    items = [{"dish": dish, "quantity": n} for n, dish in zip(amounts, dishes, strict=True)]
    text = rng.choice(("order {} and {}, no note", "Je voudrais commander {} et {}, sans remarque."))
    return text.format(*told), _call("order_food", items=items, note={"any": [None, ""]})


WISHES: tuple[tuple[Tool, Callable[[Random], Wish]], ...] = (
    *((_WEATHER, _weather), (_REMINDER, _remind), (_TRANSFER, _pay), (_LIGHT, _shine), (_TRAIN, _ride)),
    *((_LENGTH, _length), (_EVENT, _event), (_TICKET, _report), (_IMAGE, _resize), (_FOOD, _eat)),
)
DECOYS: dict[str, Tool] = {
    name_of(_WEATHER): _tool("get_tides", "High and low tide of a harbour.", harbour=("string", "Harbour")),
    name_of(_REMINDER): _tool("start_timer", "Start a countdown.", minutes=("integer", "Length in minutes")),
    name_of(_TRANSFER): _tool(
        "request_money", "Ask a contact for money.", person=("string", "Contact"), amount=("number", "Amount")
    ),
    name_of(_LIGHT): _tool(
        "set_heating", "Set a room's temperature.", room=("string", "Room"), celsius=("number", "Degrees")
    ),
    name_of(_TRAIN): _tool("find_buses", "Buses between two towns.", start=("string", "From"), end=("string", "To")),
    name_of(_LENGTH): _tool("convert_money", "Convert between currencies.", amount=("number", "Amount")),
    name_of(_EVENT): _tool(
        "move_event", "Move an event of the calendar.", title=("string", "Which"), day=("string", "To")
    ),
    name_of(_TICKET): _tool("close_ticket", "Close a ticket.", number=("integer", "Its number")),
    name_of(_IMAGE): _tool(
        "rotate_image", "Rotate an image file.", file=("string", "File"), degrees=("integer", "Angle")
    ),
    name_of(_FOOD): _tool("cancel_order", "Cancel an order of food.", number=("integer", "Its number")),
}
