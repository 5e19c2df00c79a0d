"""The commands of `python -m router`, one module or package each."""
