"""A Debian virtual machine with the distribution's kernel, in which this checkout runs; needs only Python and qemu."""


class VmError(Exception):
    """There can be no machine, or it did not do what it was for; the text says why and what would help."""
