"""Sixty everyday prompts with the decision of the shipped policy and its evidence, as a table.

python benchmarks/everyday.py [--policy data/policy] [--target 0.97] [--out docs/explanations/everyday.md]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from calibration.policies import DATA, read_policy
from router.policy.decision import Decision, decide
from router.policy.features import read_question
from router.policy.prediction import predict

PROMPTS = """
What is the capital of France?
Who wrote Hamlet?
How many legs does a spider have?
What does HTTP 404 mean?
Who was the third person to sign the charter of the Hanseatic town of Stade?
In computer science, what is the research subfield of Ilse Vandermeer?
Is this review positive or negative: "The battery died after two days."
Classify this ticket as billing, technical or other: I was charged twice in March.
spam or not spam? "You have won a free cruise, click here"
Extract all dates from: "We met on 3 May and again on 7 June 2021."
Pull the name and the amount out of this: Invoice from Kestrel Ltd, total due 412.50 EUR.
Turn this into JSON with keys name and age: Mia is 34 years old.
Summarise in one sentence: The council met on Tuesday and voted 7 to 2 to build the new bridge after a long debate.
tl;dr: The landlord raised the rent, the tenants wrote a letter, and in the end they agreed on half of it.
Translate to German: Where is the train station?
Wie sagt man "I would like to pay" auf Französisch?
Make this more polite: Send me the report now.
Fix the grammar: me and him was going to the shop yesterday
Shorten to ten words: Our team is very happy to announce that the new release is finally available to everyone.
hi
thanks, that helped!
What should I cook with eggs, rice and carrots?
Give me ideas for a birthday party for a seven-year-old
Plan a three-day trip to Lisbon in May
How do I start running if I never did any sport?
Write a poem about autumn
Five names for a coffee shop near a harbour
Write a short story about a lighthouse keeper who is afraid of the sea
Write a Python function that reverses a string
SQL query that returns the five customers with the highest revenue
Write a bash one-liner that counts the lines of all .py files
Why does this fail? TypeError: can only concatenate str (not "int") to str   print("n: " + 5)
What does this print? x = [1, 2, 3]; y = x; y.append(4); print(x)
Explain the CAP theorem in distributed systems.
What is a race condition?
What is the difference between TCP and UDP?
Why is the sky blue?
How do vaccines work?
A farmer has 12 cows, buys 7 more and sells 4. How many are left?
Tom reads 18 pages a day. How many days does he need for a book of 252 pages?
What is 17 % of 240?
13.11 or 13.9, which one is bigger?
Find all real solutions of x^4 - 5x^2 + 4 = 0 and the area between the curve and the axis.
How many positive integers below 1000 are divisible by 7 but not by 11?
Anna is taller than Ben, Ben is taller than Cem. Is Cem taller than Anna?
Three people lie or tell the truth. A says B lies, B says C lies, C says A and B lie. Who tells the truth?
Schedule five one-hour meetings on Monday so that nobody has two at once and Kim is free before ten.
A 54-year-old man has crushing chest pain and ST elevation in II, III and aVF. Which artery is occluded?
A 27-year-old woman presents with fever, neck stiffness and a petechial rash. What is the best next step?
Can I take ibuprofen and paracetamol together?
What is a normal resting heart rate?
Can my landlord keep my deposit for painting the walls?
What is the difference between a will and a trust?
Should I pay off my student loan early or invest in an index fund?
What is compound interest?
Compare Kant and Hume on causality. Whose view is easier to defend?
Rent or buy a flat when I may move in three years? Weigh the arguments.
Answer with exactly three words, none with the letter e: what is the sea like?
法国的首都是哪里?
Resume este texto en una frase: El tren llegó tarde por la nieve y los viajeros esperaron dos horas.
""".strip().splitlines()


def row(prompt: str, decision: Decision) -> str:
    """One line of the table."""
    quality = " / ".join(f"{q:.2f}" for q in decision.quality.values())
    cell = prompt.replace("|", "\\|")
    evidence = decision.evidence
    evidence_text = f"{evidence.kind}, n = {evidence.n}" if evidence.kind != "none" else "none"
    cells = (cell, decision.model, decision.reason.value, decision.question_type, evidence_text, quality)
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, default=DATA / "policy")
    parser.add_argument("--target", type=float, default=0.97)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    policy = read_policy(arguments.policy)
    decisions = []
    for prompt in PROMPTS:
        features = read_question([{"role": "user", "content": prompt}])
        decisions.append(decide(policy.rules, features, predict(policy.predictor, features), arguments.target))
    cheap = sum(d.model == policy.rules.models[0].name for d in decisions)
    text = "\n".join(
        [
            "# Sixty everyday prompts",
            "",
            f"What policy `{policy.version}` decides at a target of {arguments.target:.0%}: {cheap} of {len(PROMPTS)}"
            f" go to {policy.rules.models[0].name}. "
            "Made by `python benchmarks/everyday.py --out docs/explanations/everyday.md`.",
            "",
            "| prompt | model | reason | classified as | evidence of the type | quality, cheap / strong |",
            "|---|---|---|---|---|---|",
            *(row(p, d) for p, d in zip(PROMPTS, decisions, strict=True)),
            "",
        ]
    )
    if arguments.out:
        arguments.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
