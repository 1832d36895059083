"""Asking a service: failures by kind, pauses, pace, and when to stop. Nothing else retries."""
