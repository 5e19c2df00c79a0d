"""Calibration: questions -> answers -> judging -> learning -> comparison -> reporting -> registry."""
