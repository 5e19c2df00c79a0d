"""Alerts to the owner: in the log, on the page, in the metrics, and by webhook."""
