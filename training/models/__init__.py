"""Loading, checking and saving models, the memory they need, and their forward passes."""
