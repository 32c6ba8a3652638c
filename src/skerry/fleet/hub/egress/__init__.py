"""Egress: where a hub's records go on to, each with a cursor of its own, so that nothing is skipped."""
