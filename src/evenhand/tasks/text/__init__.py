"""Tasks on texts. One file a family."""
