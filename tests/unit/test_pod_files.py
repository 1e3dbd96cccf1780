"""What a pod's resolv.conf and hosts say."""

from __future__ import annotations

from typing import Any

from topo.pod_files import HOSTS, NODE_RESOLVER, RESOLV_CONF, Resolver, files, needs_own, parse

DNS = {"metadata": {"annotations": {NODE_RESOLVER: "172.18.0.1:5353"}}, "spec": {"clusterIP": "10.96.0.10"}}
FIRST = "search ns.svc.cluster.local svc.cluster.local cluster.local"


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "ns"}, "spec": spec}


def resolv(dns: dict[str, Any] | None = DNS, **spec: Any) -> str | None:
    return files(pod(**spec), "10.1.0.1", dns).get(RESOLV_CONF)


def test_policies() -> None:
    usual = f"{FIRST}\nnameserver 10.96.0.10\noptions ndots:5\n"
    node = "nameserver 172.18.0.1\n"
    assert resolv() == resolv(dnsPolicy="ClusterFirst") == usual
    assert resolv(dnsPolicy="Default") == node
    assert resolv(hostNetwork=True) == node  # "ClusterFirst" of a pod on the host's network is "Default"
    assert resolv(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet") == usual
    assert resolv(dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]}) == "nameserver 192.0.2.1\n"


def test_without_a_cluster_dns_the_machines_file_stays() -> None:
    assert resolv(None) is None
    assert resolv(None, dnsPolicy="Default") is None
    assert resolv(None, dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.1"]}) == "nameserver 192.0.2.1\n"


def test_dns_config_adds_and_overrides() -> None:
    config = {
        "nameservers": ["192.0.2.1", "10.96.0.10", "192.0.2.2", "192.0.2.3"],
        "searches": ["example.com", "cluster.local"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    assert resolv(dnsConfig=config) == (
        f"{FIRST} example.com\nnameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
        "options ndots:2 edns0\n"
    )


def test_hosts() -> None:
    text = files(pod(), "10.1.0.1", DNS)[HOSTS]
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert text.endswith("10.1.0.1\tp\n")
    member = files(pod(hostname="db-0", subdomain="db"), "10.1.0.1", DNS)[HOSTS]
    assert member.endswith("10.1.0.1\tdb-0.db.ns.svc.cluster.local\tdb-0\n")
    aliases = files(pod(hostAliases=[{"ip": "192.0.2.1", "hostnames": ["a", "b"]}]), "10.1.0.1", DNS)[HOSTS]
    assert aliases.endswith("10.1.0.1\tp\n\n# Entries added by HostAliases.\n192.0.2.1\ta\tb\n")
    assert "(host network)" in files(pod(hostNetwork=True), "172.18.0.2", DNS)[HOSTS]


def test_who_needs_own_files_on_the_hosts_network() -> None:
    assert not needs_own(pod(hostNetwork=True))
    assert not needs_own(pod(hostNetwork=True, dnsPolicy="Default"))
    for spec in ({"dnsPolicy": "ClusterFirstWithHostNet"}, {"dnsConfig": {"searches": ["a"]}}, {"hostAliases": [{}]}):
        assert needs_own(pod(hostNetwork=True, **spec))


def test_reading_a_resolv_conf() -> None:
    text = "# x\nnameserver 192.0.2.1\ndomain a\nsearch b c\nnameserver ::1 # y\noptions ndots:1\noptions edns0\n;z\n"
    assert parse(text) == Resolver(("192.0.2.1", "::1"), ("b", "c"), ("ndots:1", "edns0"))
