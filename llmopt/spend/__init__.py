"""The ground floor: what is spent, how much may be, and what is kept of it on disk."""
