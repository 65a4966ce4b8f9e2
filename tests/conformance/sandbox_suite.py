"""Conformance suite for sandboxes: what every backend must hold, whatever it is made of.

A case runs in an open box of `LIMITS` and raises AssertionError where the sandbox fails. Starred cases are attacks that
succeed without a sandbox: a backend's tests run them against a bare subprocess too, where each of them must fail, or
the case proves nothing. A probe prints PWNED where an attack works.
"""

from __future__ import annotations

import cases_channels
import cases_files
import cases_processes
from sandbox_case import CASES, LIMITS

__all__ = ["CASES", "LIMITS", "cases_channels", "cases_files", "cases_processes"]
