"""The hub: where the records of all devices arrive, exactly once, and from where they go on."""
