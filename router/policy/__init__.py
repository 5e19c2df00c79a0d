"""What both halves agree on: prices, features, prediction, decision, policy document. Pure: no I/O, no framework."""
