"""Where people's own images come from."""
