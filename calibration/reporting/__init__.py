"""The report of a calibration: terminal, CSV and one HTML page."""
