"""The journal of finished requests: durable before their last byte is sent."""
