"""Processes for Tune's actors, started before Tune asks for them: they import torch while the search is planned."""

import os

import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_constants import GLOBAL_GRPC_OPTIONS
from ray._private.utils import get_runtime_env_info
from ray.core.generated.common_pb2 import PYTHON  # type: ignore[attr-defined]  # made when it is imported
from ray.core.generated.node_manager_pb2 import PrestartWorkersRequest  # type: ignore[attr-defined]
from ray.core.generated.node_manager_pb2_grpc import NodeManagerServiceStub
from ray.runtime_env import RuntimeEnv

TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output prints 23 lines even when told to be quiet
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # the study is the state
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # else the second worker starts when the first is up; the searcher limits
}
"""What Tune runs with, as far as the user has not set it. Some of it reaches the actors."""

# Not read from Tune (ray.tune.execution.class_cache): the main thread may import it just now, and two threads that do
# get hold of half a module.
_OF_TUNE = {"PL_DISABLE_FORK": "1"}
_PASSED_ON = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "RAY_CHDIR_TO_TRIAL_DIR",
)
"""What Tune gives its actors of its own environment, as far as it is there. It gives them Ray Train's, too: where the
user has set some of those, what is started here goes unused."""

_KEPT_S = 600
"""So many seconds Ray keeps a process that nobody has asked for."""


def prestart_workers(count: int) -> None:
    """Have Ray start ``count`` processes on this machine that Tune's actors will fit; it does not wait for them.

    Ray starts no more at a time than there are cores, and forgets the others. By itself it starts processes early only
    for actors without environment variables of their own, and Tune's have some.
    """
    given = {**TUNE_ENVIRONMENT, **os.environ}
    variables = {**_OF_TUNE, **{name: given[name] for name in _PASSED_ON if name in given}}
    here = next(node for node in ray.nodes() if node["NodeID"] == ray.get_runtime_context().get_node_id())
    request = PrestartWorkersRequest(
        language=PYTHON,
        runtime_env_info=get_runtime_env_info(RuntimeEnv(env_vars=variables)),
        keep_alive_duration_secs=_KEPT_S,
        num_workers=count,
    )
    address = f"{here['NodeManagerAddress']}:{here['NodeManagerPort']}"
    with init_grpc_channel(address, GLOBAL_GRPC_OPTIONS) as channel:  # which pass over the user's proxy
        NodeManagerServiceStub(channel).PrestartWorkers(request)
