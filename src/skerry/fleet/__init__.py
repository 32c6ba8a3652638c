"""The fleet: what runs between many devices and the place that they report to."""
