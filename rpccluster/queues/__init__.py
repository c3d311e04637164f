"""What a queue is, and the engines that keep its items; the keeper serves it. Knows no connection and no loop."""
