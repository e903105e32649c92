"""Copies of artifacts elsewhere: BentoML's model store, a model hub, MLflow's registry."""
