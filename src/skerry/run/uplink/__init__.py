"""The uplink: what an outbox holds goes to the hub, as the link, the budget and the hub allow."""
