"""Generated messages of the door's own protocol, and nothing else."""
