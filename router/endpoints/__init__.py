"""The router's own endpoints, beside those of OpenAI's."""
