"""Fuzzing of what reads the bytes of others; `run.py` says how it is started."""
