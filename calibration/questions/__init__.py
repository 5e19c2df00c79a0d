"""The questions of a calibration, from files and MLflow datasets."""
