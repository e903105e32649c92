"""What in an image speaks for a class, by Grad-CAM."""
