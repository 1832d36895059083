"""Boxes that answer over a network."""
