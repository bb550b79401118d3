"""Synthetic faces with known ages."""
