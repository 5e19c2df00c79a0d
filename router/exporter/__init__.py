"""The journal's way to MLflow and the usage tables, in a process of its own."""
