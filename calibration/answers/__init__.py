"""The models' answers to the questions, within rate limits and budget, and their traces in MLflow."""
