"""Questions with computed answers, from any seed: `python -m calibration generate`."""
