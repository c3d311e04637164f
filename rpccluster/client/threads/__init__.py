"""The client's dealings with native threads, with gevent's hubs, and with forks of the process."""
