"""Routing: a stage that answers locally, and asks a cloud where that pays and is allowed."""
