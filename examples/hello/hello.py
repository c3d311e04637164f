"""Greets whoever calls."""


class Hello:
    def greet(self, name: str) -> str:
        """A greeting."""
        return f"Hello, {name}!"
