"""The router's own endpoints, in addition to the OpenAI API."""
