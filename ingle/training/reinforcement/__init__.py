"""Reinforcement learning on verifiable rewards: rollouts, rewards, objectives, the loop."""
