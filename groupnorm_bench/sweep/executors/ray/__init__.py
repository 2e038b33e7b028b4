"""Ray as the engine: an actor per slot, on a cluster or on a Ray of our own; no shared disk."""
