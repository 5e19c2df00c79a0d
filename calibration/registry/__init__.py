"""Policies in MLflow's model registry: registration, promotion, rollback and new prices."""
