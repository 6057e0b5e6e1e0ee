"""What operators change: functions, secrets, signing keys and API keys."""
