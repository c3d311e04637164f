"""The page: HTML that names everything before any script runs, and the script that keeps it up to date. Pure."""
