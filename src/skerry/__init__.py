"""Skerry takes foundation models to small, often-offline devices, within a declared budget.

Importing this package costs next to nothing: every room is imported by the code that needs it.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime reads it when it is imported, by whomever

__version__ = "0.1.0"
