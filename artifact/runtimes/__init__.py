"""What executes an artifact: one file per runtime, all of one shape."""
