"""The gateway as one package: the tree of the project as it is, and the command that runs it."""
