"""Views of runs, snapshots and a model's descent."""
