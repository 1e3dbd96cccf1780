"""What compilers keep: the same for equal inputs while a program has it, and nothing of what went."""

from __future__ import annotations

import gc
from dataclasses import replace

import views

from controllers import wire
from controllers.compile import pod_bridge
from controllers.flow.program import Flow, Fragment
from controllers.services import Endpoint

ASKED = views.CNIS["flannel"], views.OVS


def there_are(kind: type[object]) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


def test_equal_inputs_give_the_same_fragment_while_somebody_has_it() -> None:
    view = views.cluster("flannel")["node-1"]
    one, two = pod_bridge(view, *ASKED), pod_bridge(replace(view), *ASKED)
    assert one is not two and all(one[key] is two[key] for key in one)


def test_of_pods_and_services_that_went_nothing_is_kept() -> None:
    view = views.cluster("flannel")["node-1"]
    first = pod_bridge(view, *ASKED)
    bytes_of = [wire.set_flow(flow) for fragment in first.values() for flow in fragment.flows]
    before = {kind: there_are(kind) for kind in (Fragment, Flow, Endpoint)}
    for number in range(2, 250):
        pod = views.pod(f"p{number}", f"10.244.1.{number}", number + 10)
        service = views.service(1, "web:http/tcp", "tcp", "10.96.0.10", 80, f"10.244.1.{number}:8080")
        later = pod_bridge(replace(view, pods=(pod,), services={service.key: service}), *ASKED)
        assert [wire.set_flow(flow) for fragment in later.values() for flow in fragment.flows]
    del later
    # But for the last few versions of what all nodes share.
    assert all(there_are(kind) < count + 10 for kind, count in before.items())
    assert bytes_of == [wire.set_flow(flow) for fragment in first.values() for flow in fragment.flows]
