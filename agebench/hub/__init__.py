"""Publish models on the Hugging Face hub."""
