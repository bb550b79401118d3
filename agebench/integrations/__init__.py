"""Metrics in the forms of other libraries: torchmetrics and scikit-learn."""
