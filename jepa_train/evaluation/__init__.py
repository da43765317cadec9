"""Metrics, probes, protocols, fine-tuning and transfer."""
