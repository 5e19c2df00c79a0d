"""Bytes <-> values: bodies, event streams. No I/O."""
