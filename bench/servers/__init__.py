"""The peers' servers, a program each: sum and echo, one process, a line `Listening at: …` once it listens."""
