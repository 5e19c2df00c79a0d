"""A simulated OpenAI for the tutorial: it answers and judges the questions of a file on loopback. Nothing is billed.

    python examples/simulated_openai.py mine.jsonl

The cheap model is right as often as the strong one on some types of question, and less often on others. The numbers
are invented; every name in the output of a calibration against this server stands for a simulation.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_models import FakeModels

from calibration.questions import read

EASY = ("text/", "tables/", "documents/", "chat/", "finance/")  # types on which the simulated models are equal


def quality(model: str, question_type: str) -> float:
    """The probability that a model's answer is right."""
    is_cheap = "mini" in model or "luna" in model
    return 0.95 if not is_cheap or question_type.startswith(EASY) else 0.70


if __name__ == "__main__":
    questions = read(sys.argv[1] if len(sys.argv) > 1 else "data/questions.jsonl")
    with FakeModels(questions, quality, output_tokens=lambda model, question_type: 150) as server:
        print(f"SIMULATED: answers and verdicts are invented. In another terminal:\n\n  export OPENAI_API_KEY=simulated OPENAI_BASE_URL={server.base_url}\n")
        while True:
            time.sleep(3600)
