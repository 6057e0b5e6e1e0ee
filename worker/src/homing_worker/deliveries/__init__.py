"""Outcomes on their way to receivers: webhooks and exchanges, retry schedules, circuit breakers."""
