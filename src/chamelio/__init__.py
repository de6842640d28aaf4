"""Chamelio: a fast shared network stack for tenant-defined protocols."""

__version__ = "0.1.0"
