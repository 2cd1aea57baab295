"""The packages of the wheel: all of `lit_mem`, and the folder `configs` as `lit_mem/configs`; see pyproject.toml."""

from setuptools import find_namespace_packages, setup

configs = ["lit_mem.configs", *(f"lit_mem.configs.{name}" for name in find_namespace_packages("configs"))]
setup(
    packages=[*find_namespace_packages(include=["lit_mem*"]), *configs],
    package_dir={"lit_mem.configs": "configs"},
)
