"""The rows of ``make bench-engine``, by subject: each module adds its own to the report."""
