"""Transports: brokers that carry batches to the hub; the hub's receipt settles, never the broker's word."""
