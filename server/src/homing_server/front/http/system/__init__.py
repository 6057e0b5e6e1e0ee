"""`/system/`: functions, secrets and logs as OpenFaaS's gateway serves them, for `faas-cli` and what else knows it."""
