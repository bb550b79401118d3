"""The version of agebench."""

__version__ = "0.1.0"
