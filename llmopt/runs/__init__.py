"""A run: config, ledger, journal, engine, result."""
