"""Slurm as the engine: the plan becomes one array of jobs, by `sbatch` itself."""
