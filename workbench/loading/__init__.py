"""Loading: models and data from folders, files, memory and the hub, with clear refusals."""
