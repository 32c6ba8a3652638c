"""The room of what travels between device and hub: signed batches of records, and the receipts that settle them."""
