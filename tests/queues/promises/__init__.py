"""What every engine of queues promises: one set of tests, for all of them."""
