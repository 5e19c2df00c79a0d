"""The reasons for a choice of model."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a model was chosen. Headers, traces, logs and reports use the same word."""

    CHEAP_IS_ENOUGH = "cheap_is_enough"
    STRONG_IS_BETTER = "strong_is_better"
    NO_EVIDENCE = "no_evidence"  # the policy has no evidence for the question type
    UNCERTAIN_TYPE = "uncertain_type"  # the question type is uncertain, or may be one without evidence
    NOVEL = "novel"  # the request is unlike the questions of the calibration
    DRIFTED = "drifted"  # the question type has kept less quality than its floor since the calibration
    NOT_CERTIFIED = "not_certified"  # no threshold keeps the target
    CONTEXT_WINDOW = "context_window"  # the request fits the context window of no other model
    MODALITY = "modality"  # no other model reads the attached images or audio
    TOOLS = "tools"  # no other model calls the offered tools
    PARAMETERS = "parameters"  # no other model supports the request's parameters
    FORCED = "forced"  # the client named the model
    CONTINUED = "continued"  # the request continues a response of this model
    PASSED_THROUGH = "passed_through"  # the requested model name is not routed
    FALLBACK = "fallback"  # the chosen model did not answer
    BUDGET = "budget"  # the key's budget is nearly spent, and a lower target chooses this model
    SUCCESSOR = "successor"  # the chosen model no longer exists, and its successor answered
    ESCALATED = "escalated"  # the chosen model's answer failed verification, and a stronger model answered
