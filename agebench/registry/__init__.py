"""Registries of cards and plugins."""
