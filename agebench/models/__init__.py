"""A backbone and a head make an AgeModel."""
