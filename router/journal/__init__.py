"""Finished requests, durable before their last byte is sent; written by workers, read by the exporter."""
