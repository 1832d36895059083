"""What several searches over soft prompts share."""
