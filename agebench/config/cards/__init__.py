"""Typed cards of datasets, models and suites."""
