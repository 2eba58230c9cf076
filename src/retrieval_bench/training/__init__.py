"""Training networks: from scratch, the whole network further, or a new head alone; on `train` and nothing else."""
