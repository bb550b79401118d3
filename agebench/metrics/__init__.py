"""Metrics, confidence intervals, subgroup comparisons; needs no torch."""
