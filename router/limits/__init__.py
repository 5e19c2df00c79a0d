"""Limits of keys and teams: budgets in US dollars, requests per minute and tokens per minute."""
