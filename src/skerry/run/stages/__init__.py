"""What is done with a record: one file per kind."""
