"""The code that proxy and calibration share: prices, features, prediction, decision, policy files. No I/O."""
