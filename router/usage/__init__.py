"""What was used, what it cost, and what always-strong would have cost."""
