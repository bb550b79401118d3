"""Predictions -> figures. numpy, pandas and scipy only: serves people who have answers and no model."""
