"""Train, predict, checkpoint, devices."""
