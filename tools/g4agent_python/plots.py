"""Plots of matplotlib, if the code uses it, as files of the workspace and images for the model."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path

from g4agent.image import Image

FOLDER = "plots"
MAX_PLOTS = 10
FONTS = Path("/etc/fonts/fonts.conf")


def use_files() -> None:
    """Makes matplotlib draw without a screen, should the code import it."""
    os.environ["MPLBACKEND"] = "agg"
    if not FONTS.exists():  # as in a box: the search for fonts would complain in the output
        own = Path(tempfile.gettempdir()) / "fonts.conf"
        own.write_text("<fontconfig/>")
        os.environ["FONTCONFIG_FILE"] = str(own)
    warnings.filterwarnings("ignore", message=".*non-interactive, and thus cannot be shown")


def save_plots(workspace: Path, number: int) -> tuple[list[Image], list[str]]:
    """Saves the figures that are open after a call, and closes them; gives them, named by their paths, and notes."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    figures = pyplot.get_fignums() if pyplot is not None else []
    if pyplot is None or not figures:
        return [], []
    plots: list[Image] = []
    notes: list[str] = []
    try:
        (workspace / FOLDER).mkdir(exist_ok=True)
        for figure in figures[:MAX_PLOTS]:
            path = f"{FOLDER}/call-{number}-{figure}.png"
            pyplot.figure(figure).savefig(workspace / path)
            plots.append(Image(workspace / path, name=path))
    except Exception as error:  # drawing happens only now, and fails as the code's own calls could
        notes = [f"a plot could not be saved: {type(error).__name__}: {str(error)[:200]}"]
    if len(figures) > MAX_PLOTS:
        notes.append(f"only the first {MAX_PLOTS} of {len(figures)} plots are saved")
    pyplot.close("all")
    return plots, notes
