"""The run folder: config, rows, events, checkpoints, result."""
