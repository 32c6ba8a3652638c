"""Benchmarks: each compares Skerry with a yardstick or a peer in the same run, and reports in one common form.

A benchmark is a module of this package with a top-level ``main() -> int``; ``make bench-NAME`` runs it,
``make bench`` runs them all. :mod:`bench.report` is the form, :mod:`bench.measuring` takes the samples,
:mod:`bench.environments` gives peers an environment of their own.
"""
