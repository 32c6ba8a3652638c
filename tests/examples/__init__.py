"""Tests of the examples: each of them runs for real, shortened, in a copy."""
