"""Exploratory analysis of datasets."""
