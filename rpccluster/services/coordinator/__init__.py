"""The coordinator: stands for the lead of its cluster in a store, and tells all processes by the page of the lead."""
