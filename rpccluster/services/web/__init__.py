"""The process that serves ``/metrics`` and the page over HTTP. It keeps nothing that its master does not have."""
