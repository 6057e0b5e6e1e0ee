"""The life of invocations: admission, dispatch, recording, stops, re-runs, retention."""
