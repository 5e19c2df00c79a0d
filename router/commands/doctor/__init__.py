"""What `python -m router doctor` looks at: all that a router needs, one line each, with what to do.

Nothing is changed: no folder is made, no store is created, and no request is billed. Keys are never printed, and
neither is what a server says of them.
"""
