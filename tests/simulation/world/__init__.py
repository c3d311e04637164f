"""The made-up world: clock, processes, chance, and what is scarce."""
