"""What only the engine in Redis promises: several keepers on one Redis, and a Redis that is away or in trouble."""
