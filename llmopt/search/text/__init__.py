"""Searches over words: templates and class names."""
