"""Training: data loading, optimization, checkpoints, distribution over processes."""
