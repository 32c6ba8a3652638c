"""The workstation side: from a model to the variants that a device can run."""
