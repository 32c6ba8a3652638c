"""Where answers go: one file per kind."""
