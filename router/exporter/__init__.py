"""The export of the journal to MLflow and the usage tables, in a separate process."""
