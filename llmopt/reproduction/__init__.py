"""The papers' tables: what each needs, its grid of runs, and its figures beside ours.

A table is data (``tables/*.toml``, read by :mod:`llmopt.reproduction.spec`); its runs are cells of
a comparison, and a finished one is reused by every table and comparison that asks for the same.
"""
