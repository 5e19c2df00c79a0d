"""The client's side: its head, its key, its body, and whether it is still there."""
