"""Outcomes on their way to receivers: webhooks and exchanges, schedules, circuit breakers."""
