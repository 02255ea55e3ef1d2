"""Imported before any test: pytest would otherwise take the directories of these names for the packages themselves."""

import closectl
import devstack

__all__ = ["closectl", "devstack"]
