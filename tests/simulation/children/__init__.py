"""The scripts of made-up children: one module a kind."""
