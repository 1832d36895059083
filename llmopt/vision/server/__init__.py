"""A model behind HTTP as a black box."""
