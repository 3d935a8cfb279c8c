"""Training: `transformers.Trainer` with another loss and checkpoints that survive anything."""
