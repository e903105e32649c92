"""What an artifact says of many images, without a server: sources, rows, files of rows."""
