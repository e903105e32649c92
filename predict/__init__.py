"""Classification of many images without a server, and evaluation of artifacts."""
