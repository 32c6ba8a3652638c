"""Contract suites for plugins, the built-in ones and those of third parties."""
