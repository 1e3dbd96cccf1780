"""What must be sent so that a switch which holds one program holds another: add first, remove last."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.flow.program import BadFlow, Flow, Fragment, Group, Program, Slot, Translation


@dataclass(frozen=True, slots=True)
class Change:
    """Groups are set before the flows that use them, and removed after the flows that used them.

    forget: translations that ended; connections that follow them are to be forgotten last.
    """

    set_groups: tuple[Group, ...] = ()
    set_flows: tuple[Flow, ...] = ()
    remove_flows: tuple[Flow, ...] = ()
    remove_groups: tuple[Group, ...] = ()
    forget: tuple[Translation, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.set_groups or self.set_flows or self.remove_flows or self.remove_groups or self.forget)

    def text(self) -> str:
        """A readable difference, '+' for what is set and '-' for what is removed."""
        lines = [f"+ {g.text()}" for g in self.set_groups] + [f"+ {x.text()}" for x in self.set_flows]
        lines += [f"- {x.text()}" for x in self.remove_flows] + [f"- {g.text()}" for g in self.remove_groups]
        return "\n".join(lines)


def parted(old: Program, new: Program) -> tuple[Program, Program]:
    """What of each the other has not. Pure; costs a pointer comparison for each fragment that both have."""
    gone = {key: fragment for key, fragment in old.items() if new.get(key) is not fragment}
    return gone, {key: fragment for key, fragment in new.items() if old.get(key) is not fragment}


def difference(old: Program, new: Program) -> Change:
    """What turns `old` into `new`; of both only the parts that differ (`parted`) need be given. Pure.

    A flow that only moved to another fragment or owner is not sent again unless its cookie changed.
    """
    gone, come = (list(part.values()) for part in parted(old, new))
    old_flows, new_flows = _flows(gone), _flows(come)
    old_groups = {g.id: g for fragment in gone for g in fragment.groups}
    new_groups = {g.id: g for fragment in come for g in fragment.groups}
    return Change(
        set_groups=tuple(g for i, g in new_groups.items() if not _same_group(old_groups.get(i), g)),
        set_flows=tuple(x for slot, x in new_flows.items() if not _same_flow(old_flows.get(slot), x)),
        remove_flows=tuple(x for slot, x in old_flows.items() if slot not in new_flows),
        remove_groups=tuple(g for i, g in old_groups.items() if i not in new_groups),
        forget=tuple(sorted(_translations(gone) - _translations(come))),
    )


def _flows(fragments: list[Fragment]) -> dict[Slot, Flow]:
    out: dict[Slot, Flow] = {}
    for fragment in fragments:
        for flow in fragment.flows:
            if out.setdefault(flow.slot, flow) is not flow:
                raise BadFlow(f"{flow.source} and {out[flow.slot].source} both write {flow.text()}")
    return out


def _translations(fragments: list[Fragment]) -> set[Translation]:
    return {translation for fragment in fragments for translation in fragment.translations}


def _same_flow(old: Flow | None, new: Flow) -> bool:
    return old is not None and old.actions == new.actions and old.cookie == new.cookie


def _same_group(old: Group | None, new: Group) -> bool:
    return old is not None and (old.buckets, old.hashed) == (new.buckets, new.hashed)
