"""Searches over soft prompts, one algorithm a file."""
