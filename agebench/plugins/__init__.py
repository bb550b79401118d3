"""Plugin authoring: package templates, contract checks, the pytest plugin."""
