"""One stage of training, on transformers' Trainer."""
