"""The training loop: optimizer, schedule, meters, checkpoints, losses."""
