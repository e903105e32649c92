"""What a network is: registry, normalisation, weights, preprocessing and costs."""
