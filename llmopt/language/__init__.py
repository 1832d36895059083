"""The language model: providers, replies, retries, prices and the built-in rewriter."""
