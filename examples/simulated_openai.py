"""A simulated OpenAI for the tutorial: it answers and judges the questions of a file, on loopback. Nothing is billed.

    python examples/simulated_openai.py mine.jsonl

On some question types the cheap model is right as often as the strong one, on the others less often. These numbers are
invented, so everything that a calibration measures against this server is simulated.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_models import FakeModels

from calibration.questions.questions import read

EASY = ("text/", "tables/", "documents/", "chat/", "finance/")  # types on which the simulated models are equal


def quality(model: str, question_type: str) -> float:
    """The probability that an answer is right."""
    is_strong = model == "gpt-4o"
    return 0.95 if is_strong or question_type.startswith(EASY) else 0.70


questions = read(sys.argv[1] if len(sys.argv) > 1 else "data/questions.jsonl")
with FakeModels(questions, quality, output_tokens=lambda model, question_type: 150) as server:
    print("SIMULATED: answers and verdicts are invented. In another terminal:\n")
    print(f"  export OPENAI_API_KEY=simulated OPENAI_BASE_URL={server.base_url}\n", flush=True)
    while True:
        time.sleep(3600)
