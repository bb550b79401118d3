"""A static web page that runs an exported model in the visitor's browser."""
