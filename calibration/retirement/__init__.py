"""The replacement of a pair of models that is shut down."""
