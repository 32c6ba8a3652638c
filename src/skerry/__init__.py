"""Skerry takes foundation models to small, often-offline devices, within a declared budget.

Importing this package costs next to nothing: every room is imported by the code that needs it.
"""

import os
import sys

# What phones home is switched off before anybody can import it, user code and the probe included.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read by onnxruntime when it is imported
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # openvino then goes on without it

__version__ = "0.1.0"
