"""Trying network policies with real packets: cases, the prober that probes all pairs at once, and what they came to."""
