"""Robustness of estimators to image corruptions."""
