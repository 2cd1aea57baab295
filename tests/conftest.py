"""A quiet and offline environment, and the fixtures that all tests share (`shared_fixtures`)."""

import atexit
import os
import shutil
import tempfile

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LIT_MEM_CACHE"] = tempfile.mkdtemp(prefix="lit_mem_cache_")  # nothing is read from or left in the user's
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: threads only add overhead

atexit.register(shutil.rmtree, os.environ["LIT_MEM_CACHE"], ignore_errors=True)

settings.register_profile("few", max_examples=25)


def pytest_configure(config):
    """Without slow tests, hypothesis uses a quarter of its default examples.

    A process that only distributes tests (`-n 2`) skips the fixtures, whose imports take ten seconds.
    """
    if config.option.markexpr == "not slow":
        settings.load_profile("few")
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        config.pluginmanager.import_plugin("tests.shared_fixtures")
