"""The rows of ``make bench-serve``; peers import their own servers from here, so this imports nothing."""
