"""The tenant's side: what its agent, its slow paths and its applications are built of."""
