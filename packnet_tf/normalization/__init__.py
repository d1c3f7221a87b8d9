"""Moving statistics that are those of the network that answers."""
