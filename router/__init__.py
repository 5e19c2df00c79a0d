"""The proxy: an OpenAI-compatible API that routes each request to the cheapest model that is good enough."""
