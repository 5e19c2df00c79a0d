"""Pasted texts from which values are extracted, as text or as JSON."""

from __future__ import annotations

import json
from datetime import date, timedelta
from random import Random
from typing import Any

from calibration.generation.draft import PEOPLE, TOWNS, Draft, Maker, asked, written_lists

_GOODS = (
    *("desk lamp", "garden hose", "kettle", "mouse pad", "picture frame", "rain jacket", "tool box", "wall clock"),
    *("yoga mat", "bread knife"),
)
_COMPLAINTS = (
    "arrived with a broken handle",
    "is missing a screw",
    "is the wrong colour",
    "stopped working after two days",
    "never arrived",
)


def _order(rng: Random) -> dict[str, Any]:
    goods = rng.sample(_GOODS, 3)
    ordered = date(2024, 1, 1) + timedelta(days=rng.randint(0, 700))
    return {
        "customer": f"{rng.choice(PEOPLE)} {rng.choice(TOWNS)}",
        "order": f"{rng.choice('ABCDEFGH')}{rng.randint(10_000, 99_999)}",
        "ordered": ordered,
        "delivered": ordered + timedelta(days=rng.randint(2, 12)),
        "goods": goods,
        "amounts": [rng.randint(1, 5) for _ in goods],
        "prices": [rng.randint(400, 9_900) / 100 for _ in goods],
        "town": rng.choice(TOWNS),
        "complaint": rng.choice(_COMPLAINTS),
        "phone": f"555-{rng.randint(1000, 9999)}",
    }


def _mail(rng: Random, order: dict[str, Any], level: int) -> str:
    """A customer's e-mail; harder levels add other numbers and an older order."""
    lines = [
        rng.choice(("Hi there,", "Hello,", "Dear team,", "good evening")),
        f"on {order['ordered']:%d %B %Y} I ordered {order['amounts'][0]} x {order['goods'][0]} and {order['amounts'][1]} "
        f"x {order['goods'][1]} from you (order {order['order']}).",
        f"The parcel came on {order['delivered']:%d %B %Y}, but the {order['goods'][1]} {order['complaint']}.",
    ]
    if level > 0:
        old = f"{rng.choice('ABCDEFGH')}{rng.randint(10_000, 99_999)}"
        lines.insert(
            2, f"By the way, my earlier order {old} ({order['goods'][2]}) was perfect, this is not about that one."
        )
    if level > 1:
        lines.append(
            f"Please don't call my office (555-{rng.randint(1000, 9999)}), I have left there; {order['phone']} is right "
            f"now. And send the replacement to {order['town']}, not to the billing address in {rng.choice(TOWNS)}."
        )
    else:
        lines.append(f"You can reach me at {order['phone']}, I live in {order['town']} now.")
    lines.append(f"{rng.choice(('Best', 'Thanks', 'Regards'))}, {order['customer']}")
    return "\n".join(lines)


_ASKED = (
    ("order", "the number of the order that the complaint is about", "order number of the complaint"),
    ("phone", "the phone number that works now", "current phone no."),
    ("faulty", "the article that the customer complains about", "which article is the problem"),
    ("delivered", "the day on which the parcel came, as YYYY-MM-DD", "delivery date (YYYY-MM-DD)"),
    ("town", "the town where the customer lives or wants the replacement", "town for the replacement"),
)


def from_mail(rng: Random, level: int) -> Draft:
    """Extract one value from an e-mail."""
    order = _order(rng)
    field, told, short = rng.choice(_ASKED)
    value = order["goods"][1] if field == "faulty" else order[field]
    question = rng.choice(
        (
            "From the e-mail below, give me {told}. Only that, no sentence.\n\n---\n{mail}\n---",
            "{mail}\n\n^ {short}? just the value",
            'Extract {told} and print nothing else.\n\n"""\n{mail}\n"""',
        )
    ).format(told=told, short=short, mail=_mail(rng, order, level))
    right = [str(value), f"the {value}"] if field == "faulty" else str(value)
    return Draft(question, right, "exact")


_INVOICE = {
    "en": ("Invoice {order}\nDate: {day}\n{lines}\nShipping: {ship}\nTotal: {total}", "What was charged for shipping?"),
    "de": (
        "Rechnung {order}\nDatum: {day}\n{lines}\nVersand: {ship}\nSumme: {total}",
        "Wie hoch waren die Versandkosten?",
    ),
    "fr": (
        "Facture {order}\nDate : {day}\n{lines}\nPort : {ship}\nTotal : {total}",
        "Combien coûtaient les frais de port ?",
    ),
    "es": ("Factura {order}\nFecha: {day}\n{lines}\nEnvío: {ship}\nTotal: {total}", "¿Cuánto costó el envío?"),
    "pt": ("Fatura {order}\nData: {day}\n{lines}\nEnvio: {ship}\nTotal: {total}", "Quanto custou o envio?"),
    "zh": ("发票 {order}\n日期：{day}\n{lines}\n运费：{ship}\n合计：{total}", "运费是多少？只回答数字。"),
    "ja": (
        "請求書 {order}\n日付：{day}\n{lines}\n送料：{ship}\n合計：{total}",
        "送料はいくらですか。数字だけ答えてください。",
    ),
    "ar": (
        "فاتورة {order}\nالتاريخ: {day}\n{lines}\nالشحن: {ship}\nالمجموع: {total}",
        "كم تكلفة الشحن؟ اكتب الرقم فقط.",
    ),
    "hi": ("बिल {order}\nतारीख: {day}\n{lines}\nभेजने का खर्च: {ship}\nकुल: {total}", "भेजने का खर्च कितना था? केवल संख्या लिखें।"),
}


def from_invoice(rng: Random, level: int) -> Draft:
    """Extract a number from an invoice; at the hard level the number is illegible and has to be computed."""
    order, ship = _order(rng), rng.randint(290, 990) / 100
    total = sum(n * p for n, p in zip(order["amounts"], order["prices"], strict=True)) + ship
    language = rng.choice(list(_INVOICE))
    form, question = _INVOICE[language]
    lines = "\n".join(
        f"{n} x {good} @ {p:.2f}" for n, good, p in zip(order["amounts"], order["goods"], order["prices"], strict=True)
    )
    shown = "####" if level == 2 else f"{ship:.2f}"
    text = form.format(order=order["order"], day=order["ordered"], lines=lines, ship=shown, total=f"{total:.2f}")
    return asked(rng, f"{text}\n\n{question}", round(ship, 2), language=language, tolerance=0.005)


def mentions(rng: Random, level: int) -> Draft:
    """List the people in a note who did something, in the order of the note."""
    people = rng.sample(PEOPLE, 4 + level)
    signed = [rng.random() < 0.5 for _ in people]
    signed[0], signed[-1] = True, False
    lines = [
        rng.choice((f"{who} signed the petition", f"the petition was signed by {who}"))
        if did
        else rng.choice((f"{who} read it but would not sign", f"{who} was away", f"{who} only asked for a copy"))
        for who, did in zip(people, signed, strict=True)
    ]
    right = [who for who, did in zip(people, signed, strict=True) if did]
    question = f"Door-to-door notes: {'; '.join(lines)}.\n\nWho signed? Names only, comma-separated, in the order of the notes."
    return Draft(question, written_lists(right), "exact")


def order_json(rng: Random, level: int) -> Draft:
    """Convert an e-mail to JSON with a given schema."""
    order = _order(rng)
    value: dict[str, Any] = {"order": order["order"], "faulty_article": order["goods"][1]}
    keys = ['"order" (text)', '"faulty_article" (text, singular as written)']
    if level > 0:
        value["ordered"], value["delivered"] = str(order["ordered"]), str(order["delivered"])
        keys += ['"ordered" and "delivered" (both YYYY-MM-DD)']
    if level > 1:
        value["items"] = [
            {"article": good, "quantity": n} for good, n in zip(order["goods"][:2], order["amounts"][:2], strict=True)
        ]
        value["phone"] = order["phone"]
        keys += [
            '"items" (a list of {"article", "quantity"} of this order, in the order named)',
            '"phone" (the one that works)',
        ]
    question = rng.choice(("Turn this mail into one JSON object", "JSON please, one object")) + (
        f" with exactly these keys: {', '.join(keys)}. No comment.\n\n{_mail(rng, order, level)}"
    )
    return Draft(question, value, "json")


def reshape(rng: Random, level: int) -> Draft:
    """Transform JSON: filter, rename or group."""
    rows: list[dict[str, Any]] = [
        {"id": place + 1, "name": name, "team": rng.choice(("red", "blue", "green")), "points": rng.randint(0, 50)}
        for place, name in enumerate(rng.sample(PEOPLE, 4 + level))
    ]
    given = json.dumps(rows)
    if level == 0:
        cut = sorted(row["points"] for row in rows)[1]
        right: Any = [row["name"] for row in rows if row["points"] > cut]
        told = f"a JSON list of the names of those with more than {cut} points, in the same order"
    elif level == 1:
        right = [
            {"user": row["name"], "score": row["points"]} for row in sorted(rows, key=lambda r: (-r["points"], r["id"]))
        ]
        told = 'a JSON list of objects with keys "user" (the name) and "score" (the points), highest score first, ties by id'
    else:
        right = {}
        for row in rows:
            team = right.setdefault(row["team"], {"members": 0, "points": 0})
            team["members"] += 1
            team["points"] += row["points"]
        told = 'a JSON object: each team that occurs -> {"members": how many, "points": their sum}'
    question = rng.choice((f"{given}\n\nGive me {told}.", f"Input:\n{given}\nOutput {told}. Nothing but JSON."))
    return Draft(question, right, "json", system=rng.choice(("", "You output valid JSON only, without a code fence.")))


def repair(rng: Random, level: int) -> Draft:
    """Repair invalid JSON without changing its values."""
    value = {
        "name": rng.choice(PEOPLE),
        "active": rng.random() < 0.5,
        "tags": rng.sample(("new", "vip", "trial", "late"), 2),
        "limit": rng.choice((None, rng.randint(1, 99))),
    }
    broken = json.dumps(value)
    for fault in (("]", ",]"), ('"name"', "name"), ('"', "'"))[: 1 + level]:
        broken = broken.replace(*fault)
    question = rng.choice(
        (
            "My parser chokes on this, repair it without changing values:\n{}",
            "fix this json, output only the json\n\n{}",
        )
    )
    return Draft(question.format(broken), value, "json")


KINDS: dict[str, tuple[Maker, ...]] = {
    "text/extraction": (from_mail, from_invoice, mentions),
    "text/json": (order_json, reshape, repair),
}
