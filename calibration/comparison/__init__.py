"""The comparison of the models on the outcomes: quality, cost, tradeoffs and the verdict."""
