"""Pods in which nothing runs but what a scenario starts there."""

from __future__ import annotations


def pod(name: str, node: str) -> str:
    """A document of a manifest."""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec: {{nodeName: {node}, containers: [{{name: idle, image: none}}]}}
---
"""
