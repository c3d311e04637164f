"""The part that both faces of the client share. Opens no socket and starts no thread; clocks are passed in."""
