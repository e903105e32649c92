"""Times the layers of networks, compares them with a roofline, and predicts latency from them."""
