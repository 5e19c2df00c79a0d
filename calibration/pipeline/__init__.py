"""The stages of a calibration in order, once or in rounds."""
