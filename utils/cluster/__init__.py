"""Several machines: workers, who may connect to them, a cluster on this machine."""
