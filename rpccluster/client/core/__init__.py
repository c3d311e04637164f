"""What both faces of the client share. It opens no socket, starts no thread and reads no clock: times are handed in."""
