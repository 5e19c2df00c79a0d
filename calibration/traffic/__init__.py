"""Recorded traffic as questions, and its mix of question types."""
