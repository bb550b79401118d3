"""Metric layouts of published evaluations."""
