"""Usage, cost, and the estimated cost of sending every request to the strong model."""
