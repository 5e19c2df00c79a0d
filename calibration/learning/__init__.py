"""From outcomes to a policy: predictor, replay, certified thresholds, escalation."""
