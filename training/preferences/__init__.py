"""Reward models, reward functions, and what is learned from rankings."""
