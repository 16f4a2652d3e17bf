"""Fine-tuning on conversations of one's own: reading them, full weights or LoRA, merging."""
