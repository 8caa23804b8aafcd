"""What is measured of a model: at the end, between epochs, and while it goes on."""
