"""What goes over one connection: requests to bytes, bytes to replies, and which reply ends which call. Sans-I/O."""
