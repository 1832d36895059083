"""The front door: what the command line does, for Python."""
