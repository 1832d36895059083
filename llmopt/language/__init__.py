"""The language model: providers, questions, replies, prices and the built-in rewriter."""
