"""Checks of a model's answer before it is passed on. Pure: values in, a finding or None out."""
