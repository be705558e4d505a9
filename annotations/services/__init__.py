"""Writes: prompts and replies, the tasks made of them, leases, and the labels people give."""
