"""The names of the world outside the cluster, for a resolver there: those it is given, and no others."""

from __future__ import annotations

from collections.abc import Iterable

from topo.addons.dns.records import TTL, Answer, Record, is_address, kind_of, pointer

_SOA = Record(".", "SOA", f"ns.invalid. hostmaster.invalid. 1 7200 1800 86400 {TTL}")


class Names:
    """Names with addresses, or with another name (a CNAME), and the addresses' names."""

    def __init__(self, entries: Iterable[tuple[str, str]]) -> None:
        self._records: dict[str, list[Record]] = {}
        for name, value in entries:
            name = f"{name.rstrip('.').lower()}."
            if is_address(value):
                self._add(Record(name, kind_of(value), value))
                self._add(Record(pointer(value), "PTR", name))
            else:
                self._add(Record(name, "CNAME", f"{value.rstrip('.')}."))

    def _add(self, record: Record) -> None:
        self._records.setdefault(record.name, []).append(record)

    def lookup(self, name: str, kind: str) -> Answer:
        """The answer to a question. Whatever is not here is nowhere: NXDOMAIN."""
        chain: list[Record] = []
        seen = set()
        while name not in seen:
            seen.add(name)
            have = self._records.get(name)
            if have is None:
                below = any(other.endswith(f".{name}") for other in self._records) or name == "."
                return Answer("NOERROR" if below else "NXDOMAIN", tuple(chain), (_SOA,))
            found = [record for record in have if kind in (record.kind, "ANY")]
            if found or have[0].kind != "CNAME":
                return Answer(records=(*chain, *found), authority=() if found else (_SOA,))
            chain.append(have[0])
            name = have[0].data.lower()
        return Answer("SERVFAIL")  # CNAMEs in a circle
