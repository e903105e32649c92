"""Networks: registry, normalisation, published weights and costs."""
