"""A folder or git repository of the user's as a run's workspace: a copy goes in, and the changes to it come out.

    project = Project.read(Path("."))
    ...                                       # a run works on project.archive()
    changes = Changes.of(project, snapshot)
    changes.apply()                           # all of it, or nothing

The run only ever sees the copy. What is protected, ignored by git, or made by tools (`node_modules`, caches) is not
copied, and no change to it comes out.
"""

from g4agent.project.changes import Changes
from g4agent.project.entries import Entry
from g4agent.project.project import Project
from g4agent.project.replace import ChangesConflictError

__all__ = ["Changes", "ChangesConflictError", "Entry", "Project"]
