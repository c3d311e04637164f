"""The plan of an afternoon, and how it is drawn from a seed."""
