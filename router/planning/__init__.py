"""From the body of a request to a plan: which models get it, in which order, and why."""
