"""What bounds a network on this machine: its layers, the roofline, a prediction."""
