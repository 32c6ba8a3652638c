"""Peers: the pins of each peer's environment, and the programs that run in them beside a benchmark."""
