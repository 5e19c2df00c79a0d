"""Deprecated since 0.2.0: `python -m calibration generate` takes the same options."""

from __future__ import annotations

import sys

from calibration.__main__ import main

sys.argv[1:1] = ["generate"]
main()
