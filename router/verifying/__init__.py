"""Checks of a model's answer before it is forwarded. Pure functions: they return a finding or None."""
