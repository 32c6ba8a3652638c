"""Skerry takes foundation models to small, often-offline devices, within a declared budget.

Importing this package costs next to nothing: every room is imported by the code that needs it.
"""

__version__ = "0.1.0"
