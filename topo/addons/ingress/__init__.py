"""An Ingress controller: real nginx in a pod, configured from the lab's Ingress objects as they change."""
