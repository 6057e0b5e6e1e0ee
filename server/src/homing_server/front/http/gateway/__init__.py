"""The gateway: functions invoked over plain HTTP, as OpenFaaS's clients do it."""
