"""Conversion between bytes and values: JSON bodies and event streams. No I/O."""
