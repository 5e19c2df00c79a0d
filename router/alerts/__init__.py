"""Alerts to the operator: in the log, on the dashboard, in the metrics and by webhook."""
