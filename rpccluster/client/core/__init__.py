"""What both faces of the client share. It opens no socket and starts no thread; times and clocks are handed in."""
