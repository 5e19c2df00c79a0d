"""Scores of the answers: exact checks and MLflow evaluations by a judge model."""
