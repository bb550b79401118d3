"""Analyses of datasets and estimators."""
