"""Prompts in other tools' formats."""
