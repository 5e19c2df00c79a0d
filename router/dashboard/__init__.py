"""The page at `/`, and what it is told."""
