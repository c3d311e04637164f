"""The exchange over one connection: requests to bytes, bytes to replies, replies to calls. Sans-I/O."""
