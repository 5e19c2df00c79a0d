"""Calls to models: upstreams, connections, retries and fallback models."""
