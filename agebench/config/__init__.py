"""Typed configuration: cards of datasets, models and suites."""
