"""A shop that an agent can search, buy from, and cancel or return orders in."""
