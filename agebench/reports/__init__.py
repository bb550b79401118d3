"""Results -> tables, figures and pages. Made from what a run wrote down; no figure is computed again."""
