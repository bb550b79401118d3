"""Looking closer: a dataset before training, a recipe before the long run."""
