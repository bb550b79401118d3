"""Models that agebench did not train, called as their cards say. Nothing heavy is imported before a model is opened."""
