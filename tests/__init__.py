"""The tests of regproxy, to be run with trial."""

from hypothesis import HealthCheck, settings

# A busy machine is slow, not wrong.
settings.register_profile("regproxy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("regproxy")
