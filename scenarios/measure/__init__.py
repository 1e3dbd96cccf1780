"""Measuring between two places of a lab: latencies, throughput, loss, CPU and memory."""
