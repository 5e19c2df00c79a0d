"""Questions whose answers are computed; `data/generate.py` writes them."""
