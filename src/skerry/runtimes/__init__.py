"""One file per inference engine.

A runtime is a class behind the entry point group ``skerry.runtimes``; its protocol is
:class:`skerry.spec.ports.Runtime`, and :mod:`skerry.testing.runtimes` is the suite that it must pass.
Importing any module of this room imports neither an inference engine nor numpy.
"""
