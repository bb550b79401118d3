"""Training and evaluation runs, from configuration to report."""
