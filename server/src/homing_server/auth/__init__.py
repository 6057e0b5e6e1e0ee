"""Who calls and what they may do: identities, scopes, API keys, rates and the audit log."""
