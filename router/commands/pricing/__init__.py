"""Show the price table, and compare it with a public price map."""
