"""Backbone + head = AgeModel."""
