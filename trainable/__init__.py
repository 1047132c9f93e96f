"""One trial of fine-tuning, from image files to metrics. Knows nothing of the search around it."""
