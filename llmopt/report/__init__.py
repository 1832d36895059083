"""A page that shows runs to others."""
