"""What ships inside an archive: a handler for each task, and what they share. It never imports the pipeline."""
