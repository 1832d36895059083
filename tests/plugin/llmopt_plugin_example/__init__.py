"""Patches of colour: a data set, a model that sees them, and ways to adapt it."""
