"""The commands of `python -m calibration`, one module each, and the options that they share."""
