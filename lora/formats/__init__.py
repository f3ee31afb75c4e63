"""Adapters of other libraries, read without their model: one reader each, which accounts for every stored tensor."""
