"""Suites: matrices of runs and their execution."""
