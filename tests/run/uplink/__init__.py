"""The uplink's tests."""
