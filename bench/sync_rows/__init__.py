"""The benchmark of keeping and sending: its parts."""
