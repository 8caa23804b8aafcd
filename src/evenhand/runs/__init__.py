"""One run of one method on one task, from its configuration to its record."""
