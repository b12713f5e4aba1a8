"""What a run keeps: checkpoints, summaries, traces, locks, the machine it is on."""
