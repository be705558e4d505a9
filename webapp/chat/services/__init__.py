"""Writes of conversations, replies and feedback."""
