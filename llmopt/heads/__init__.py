"""Small functions of scores or features, fitted on the few shots."""
