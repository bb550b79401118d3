"""Sections of reports, as Markdown."""
