"""What must hold: after every step, and in peace."""
