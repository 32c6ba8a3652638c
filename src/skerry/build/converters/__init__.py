"""The converters: one script each, run by the Python of a toolchain, in which Skerry itself is not installed.

A script offers ``convert(request, talk) -> dict``; :mod:`skerry.build.converters.child` calls it, and hands in as
``talk`` the way to report progress and to refuse a request. What a request and its answer hold stands in each script's
first lines. Scripts import nothing of Skerry, and heavy packages only inside their functions.
"""
