"""Matplotlib plots of runs, evaluations and splits."""
