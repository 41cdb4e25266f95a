"""The service whose admin is looked at."""
