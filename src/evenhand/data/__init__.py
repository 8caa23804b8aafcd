"""What every room reads: rows, tables, pictures, and what a model's inputs are made of."""
