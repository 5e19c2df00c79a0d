"""What both halves agree on: prices, features, prediction, decision and the policy document. Pure: no I/O, no framework."""
