"""The client's side of a request: protocol, API key, body, model name and disconnection."""
