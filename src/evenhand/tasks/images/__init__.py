"""Tasks on pictures. One file a family."""
