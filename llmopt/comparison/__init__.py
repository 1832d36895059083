"""Optimizers side by side: a grid of runs as one table."""
