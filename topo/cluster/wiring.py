"""Fixed numbers on which the builder of a node and the compiler of its flows agree."""

from __future__ import annotations

# OpenFlow ports of a node's pod bridge br-int; pods follow from FIRST_POD.
TUNNEL_PORT, GATEWAY_PORT, UPLINK_PORT, FIRST_POD_PORT = 1, 2, 3, 10
# From here on, containers that somebody attached by hand, with the CNI plugin as a program.
FIRST_FOREIGN_PORT = 30000
# OpenFlow ports of a node's uplink bridge br-ex: the wire, the patch to br-int, and the way to what seals packets.
WIRE_PORT, PATCH_PORT, SEAL_PORT = 1, 2, 3
# By which br-ex hands the node's kernel packets to seal, and gets back what it has opened.
SEAL_DEVICE, SEAL_MAC = "seal0", "0a:58:00:00:00:03"

# Link-local addresses that stand for a node among its pods: the client a masqueraded connection shows where no other
# address of the node would do, and the address by which the node's own programs reach NodePorts.
HAIRPIN_IP, NODEPORT_IP = "169.254.169.252", "169.254.169.253"
# Source MAC of packets that the node's kernel is to reject.
REJECT_MAC = "0a:58:00:00:00:02"

# What is in the MAC of every pod and of most gateways before its IPv4 address.
MAC_BEFORE_IP = "0a:58:00:00:00:00"

# Annotations by which the lab tells the controller what it built.
MAC = "mininetes.dev/mac"
GATEWAY_MAC = "mininetes.dev/gateway-mac"
PORT = "mininetes.dev/ofport"
# The subnet of the fabric that a node is in.
SUBNET = "mininetes.dev/subnet"
# A process in the node's namespaces.
PID = "mininetes.dev/pid"
# JSON: through which node another is reached, by name, where it is not directly.
RELAYS = "mininetes.dev/relays"
# How often the node's interfaces came back after its switch had died; whoever set anything on them looks again.
RESTORED = "mininetes.dev/restored"
# Annotation a user sets: a command line of the host to run instead of the stand-in server.
COMMAND = "mininetes.dev/command"

# Annotations of Calico's by which a pod asks for an address (a JSON list) or a MAC (its pages "Use a specific IP
# address" and "Use a specific MAC address").
WANTED_IP, WANTED_MAC = "cni.projectcalico.org/ipAddrs", "cni.projectcalico.org/hwAddr"

# API group of our own objects: Lab (one, named "lab") and FabricSwitch.
GROUP = "mininetes.dev/v1"
