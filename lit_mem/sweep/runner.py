"""Run trials on Ray Tune: in parallel if resources allow, with retries after crashes."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lit_mem.sweep import trial as one_trial
from lit_mem.sweep.extra import import_ray
from lit_mem.sweep.ray_session import cluster, private_session

Ended = Callable[[str], None]


def run_all(
    jobs: Sequence[dict[str, Any]],
    ended: Ended,
    *,
    address: str | None = None,
    parallel: int | None = None,
    retries: int = 1,
) -> None:
    """Run every job; a failure does not affect the others, and is recorded in its `trial.json`.

    Args:
        jobs: jobs for `lit_mem.sweep.trial.run`.
        ended: called with the name of each finished trial.
        address: address of a Ray cluster that shares the same folders; None: only this machine.
        parallel: number of concurrent trials; None: one per GPU, or one.
        retries: how often a crashed trial is retried.
    """
    import_ray(address)
    import ray
    from ray import tune

    session = private_session() if address is None else cluster(address, Path(jobs[0]["folder"]).parent.parent / "ray")
    with session as storage:  # Ray's own files are pickled; trials resume from checkpoints, which are not
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        at_once = parallel or max(1, gpus)
        each = {"cpu": max(1, int(resources.get("CPU", 1)) // at_once), "gpu": min(1.0, gpus / at_once)}
        by_name = {job["name"]: job for job in jobs}
        trainable = tune.with_parameters(_train, jobs=by_name)
        tuner = tune.Tuner(
            tune.with_resources(trainable, each),
            param_space={"trial": tune.grid_search(list(by_name))},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(storage),
                failure_config=tune.FailureConfig(max_failures=retries),
                callbacks=[_watcher(ended)],
                verbose=0,
            ),
        )
        tuner.fit()


def _train(config: dict[str, Any], jobs: dict[str, dict[str, Any]]) -> None:
    from ray import tune

    status = one_trial.run(jobs[config["trial"]])
    tune.report({"status": status["status"]})


def _watcher(ended: Ended) -> Any:
    from ray.tune.progress_reporter import TrialProgressCallback

    class Watcher(TrialProgressCallback):  # type: ignore[misc]  # Ray has no types if not installed
        """Reports finished trials, instead of Tune's own lines."""

        def on_trial_result(self, *args: Any, **info: Any) -> None:
            pass

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended(trial.config["trial"])

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            ended(trial.config["trial"])

    return Watcher()


def quieten() -> None:
    """Silence Ray on the console: each trial has its own log."""
    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
