"""Long runs, started by ``make soak`` only."""
