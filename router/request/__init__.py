"""The path of a request: routed or passed through, sent, verified, returned and recorded."""
