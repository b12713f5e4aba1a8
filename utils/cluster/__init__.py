"""Several machines: TF_CONFIG, workers, who may connect to them, a cluster on this machine."""
