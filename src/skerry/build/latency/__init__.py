"""Latency, predicted: how long a form of a model will take, from what it computes and how fast this machine is."""
