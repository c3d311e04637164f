"""Other libraries' names over this project's client, so that code written for them moves over unchanged."""
