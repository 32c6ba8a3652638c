"""What bench-build measures, a noun in each file."""
