"""Exact checks of an answer against its reference, without a judge."""
