"""What holds for every test: budgets of property tests, and forks beside gRPC.

Budgets are chosen by ``HYPOTHESIS_PROFILE``.

``default``: no deadline, since how fast a shared machine happens to be is not what a property is about. ``ci``
(chosen where ``CI`` is set): the same examples in every run. ``fuzz``: a large budget, for ``make fuzz``.
``mutants``: the same examples in every run and none made smaller, for ``make mutants``, which only asks whether one
fails.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# Tests in namespaces fork, perhaps where gRPC has run. Its fork handlers, on by default, wait there for its other
# threads, for ever under load (__run_prefork_handlers), or start its pollers again in the child, which then aborts
# ("Check failed: next_worker->state == KICKED", ev_epoll1_linux.cc). The children never speak gRPC.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

FAST_EXAMPLES = 50
"""For each property in the fast suite, where it does not say otherwise itself: every commit runs them all again."""
FUZZ_EXAMPLES = 1_500

settings.register_profile("default", deadline=None, max_examples=FAST_EXAMPLES)
settings.register_profile("ci", deadline=None, max_examples=FAST_EXAMPLES, derandomize=True, print_blob=True)
settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=FUZZ_EXAMPLES,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))
