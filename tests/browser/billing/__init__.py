"""Another service on the same server, with a listener and a database of its own."""
