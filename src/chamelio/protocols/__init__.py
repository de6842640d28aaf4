"""Protocols that come with the project; each folder is what a tenant could have written."""
