"""Trials with real registries and real clients, all on loopback.

Every test starts its own processes in its own directory on its own ports, and ends them again.
A program that is not installed skips the tests that need it; with ``REGPROXY_REQUIRE_PEERS=1`` it
fails them instead. ``REGPROXY_KEEP_TRIALS=1`` keeps the directories with every log for a look.
"""
