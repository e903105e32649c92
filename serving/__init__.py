"""How a network answers: the BentoML service, its settings and its start."""
