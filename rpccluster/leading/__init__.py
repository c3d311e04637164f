"""Who of several clusters leads: the stores in which they agree on it, and the page that tells their processes."""
