"""Registers the long profile before hypothesis looks for it."""

from tests.fuzz.effort import register

register()
