"""All that talks to W&B."""
