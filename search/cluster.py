"""Ray, joined or started here; it takes seconds to start, in which its caller goes on with other work."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from search.config import ResourcesConfig
from search.prestart import prestart_workers
from search.resources import Cluster, share_out
from trainable.errors import InputError

_ENVIRONMENT = {
    "RAY_preload_python_modules": "trainable.worker",  # while Tune makes an actor of it
    "RAY_prestart_worker_first_driver": "0",  # such workers have not the environment that Tune asks for
    "RAY_memory_monitor_refresh_ms": "0",  # its kills would end the whole experiment; the kernel's are tried again
}

Started = Callable[[], Cluster]
"""Waits until Ray is up, and says what each trial is given of it; raises `InputError` where there is no Ray, or where
it cannot hold a single trial."""


@contextmanager
def ray_cluster(
    address: str | None, resources: ResourcesConfig, say: Callable[[str], None], trials: int = 0
) -> Iterator[Started]:
    """Join the Ray cluster at ``address`` (or at $RAY_ADDRESS, or the one this process is in), or start one here.

    Args:
        trials: so many will be asked of Tune. Where Ray is started here, so are, at once, processes for those that fit.
    """
    if ray.is_initialized():
        yield lambda: share_out(resources, _nodes())
        return
    if threading.current_thread() is threading.main_thread():  # Ray does so itself only where it is started from there
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
    # The thread lives until Ray has ended: Linux ends Ray's processes with the thread that started them.
    with ThreadPoolExecutor(1, "ray") as thread:
        start = thread.submit(_start, address, resources, trials)

        def started() -> Cluster:
            dashboard, cluster = start.result()
            if dashboard:
                token = os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token")
                say(f"Ray dashboard: http://{dashboard} (it asks for the token in {token})")
            return cluster

        try:
            yield started
        finally:
            wait([start])
            ray.shutdown()


def _start(address: str | None, resources: ResourcesConfig, trials: int) -> tuple[str | None, Cluster]:
    """The dashboard's address, if there is one, and what each trial is given."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        options = {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
    try:
        with environment(_ENVIRONMENT):
            context = ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--address must be that of a running Ray cluster, or be left out to start one here; got {address}: {error}"
        ) from error
    cluster = share_out(resources, _nodes())
    if address == "local" and trials:
        prestart_workers(min(trials, cluster.concurrency))
    return context.dashboard_url, cluster


def _nodes() -> list[dict[str, float]]:
    """What each machine of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """These environment variables, as far as the user has not set them."""
    unset = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            os.environ.pop(name, None)
