"""Puts the native attention kernel into the wheel where there is a compiler; without one the wheel is pure Python."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("runtimes/g4agent_torch/turboquant")


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles the kernel, or takes the one compiled before from the same sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # compiled at first use
            return
        spec = importlib.util.spec_from_file_location("compiling", Path(self.root, PACKAGE, "compiling.py"))
        assert spec is not None and spec.loader is not None
        compiling = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(compiling)
        library = compiling.compiled()
        if library is None:
            return
        build_data["force_include"][str(library)] = f"g4agent_torch/turboquant/{compiling.LIBRARY}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
