"""From a W&B sweep file to runs: spec (the file) -> plan (the runs) | search -> scheduler."""
