"""Text features of many prompts at once: shared beginnings are encoded once."""
