"""Changes to a request for the model that gets it, and what refusals of upstreams teach."""
