"""Training: data, recipes, the training module and checkpoints."""
