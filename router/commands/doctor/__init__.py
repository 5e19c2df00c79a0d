"""`python -m router doctor`: check all that a router needs and print one line for each check, with a remedy.

The checks change nothing: they create no folder and no store, and send no billed request. They never print keys, or
server messages about keys.
"""
