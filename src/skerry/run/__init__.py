"""The device side: a pipeline at work."""
