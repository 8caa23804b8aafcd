"""Shortcuts that have a name: rules that give every sample a value, and what the training rows say of the values."""
