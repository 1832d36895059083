"""Experiment trackers that watch a run.

A tracker is told what people are told, and the result. It changes nothing of the run, and one that
fails is left behind with a warning.
"""
