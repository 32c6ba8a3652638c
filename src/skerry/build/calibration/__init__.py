"""Calibration: the statistics that vouch for a threshold; pure functions over arrays."""
