"""How a network learns: data, recipes, the training module and checkpoints."""
