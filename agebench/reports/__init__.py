"""metrics.json -> tables and figures. Nothing is computed here that metrics.json or the predictions do not hold."""
