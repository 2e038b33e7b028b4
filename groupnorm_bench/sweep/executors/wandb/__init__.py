"""W&B as the engine: its agents train; a local sweep shown by W&B as one."""
