"""Made-up processes that run the real master, and the operating system that they see."""
