"""The page at `/`, and the endpoints that it reads."""
