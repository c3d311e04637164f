"""The master's side of plugins: their groups and slots, what they write, what they hold. Runs in the master."""
