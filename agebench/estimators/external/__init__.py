"""External models, called as their cards specify. Runtimes are imported only when a model is opened."""
