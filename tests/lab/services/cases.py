"""All cases, for the files that run them, one a mode."""

from services.balance import *  # noqa: F403
from services.external import *  # noqa: F403
from services.loadbalancer import *  # noqa: F403
from services.policies import *  # noqa: F403
from services.ports import *  # noqa: F403
from services.readiness import *  # noqa: F403
from services.udp import *  # noqa: F403
