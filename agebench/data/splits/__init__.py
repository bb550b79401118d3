"""Train, validation and test splits without leakage, and evaluation protocols."""
