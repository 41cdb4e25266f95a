"""The service of the trials, as an app."""
