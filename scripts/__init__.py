"""What make runs: the installation, and the pages of the documentation that are made from the code."""
