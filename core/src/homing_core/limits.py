"""The limits and defaults of the public API, in one place. Durations are seconds, sizes bytes."""

import re
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

FUNCTION_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""The whole of a function's name; no dots, so that `NAME.NAMESPACE` of other systems stays free."""

MAX_INLINE_PAYLOAD: Final = 256 * KIB
MAX_INLINE_RESULT: Final = 256 * KIB
MAX_PAYLOAD: Final = 64 * MIB
"""A body over the inline limit is kept in a file, and has at most so many bytes."""
MAX_PART: Final = 1 * MIB
"""Such a body travels in parts of at most so many bytes."""
MAX_UPLOADS: Final = 1000
MAX_UPLOADS_SIZE: Final = 4096 * MIB
"""So many bodies, and bytes in them, a caller may have stored to which no invocation refers yet."""
MAX_REQUEST_ID: Final = 128
MAX_CALL_ID: Final = 128
MAX_LABELS: Final = 16
MAX_LABEL_KEY: Final = 63
MAX_LABEL_VALUE: Final = 255
MAX_STATUS_CODES: Final = 300
"""A retry policy names so many status codes at most: all that are no success."""
MAX_HEADERS: Final = 64
MAX_HEADERS_SIZE: Final = 16 * KIB
MAX_ANSWER_HEADERS: Final = 500
MAX_ANSWER_HEADER_SIZE: Final = 64 * KIB
"""An answer is read that has so many headers at most, each of so many bytes at most; what is kept of them is less."""
MAX_URL: Final = 2048
MAX_BATCH: Final = 1000
MAX_BULK_RATE: Final = 10_000.0
BULK_CALL_KEPT: Final = 7 * 24 * 3600.0
"""So long after it last did something a call about many is remembered by its request id."""
MAX_STOP_REASON: Final = 1024

MAX_ATTEMPTS: Final = 100
DEFAULT_ATTEMPTS: Final = 3
DEFAULT_INITIAL_BACKOFF: Final = 1.0
DEFAULT_BACKOFF_MULTIPLIER: Final = 2.0
DEFAULT_MAX_BACKOFF: Final = 300.0
MAX_BACKOFF: Final = 24 * 3600.0
DEFAULT_MAX_RETRY_AFTER: Final = 300.0
RETRY_STATUS_CODES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})

DEFAULT_ATTEMPT_TIMEOUT: Final = 300.0
MAX_ATTEMPT_TIMEOUT: Final = 24 * 3600.0
DEFAULT_MAX_AGE: Final = 24 * 3600.0
MIN_MAX_AGE: Final = 1.0
MAX_MAX_AGE: Final = 30 * 24 * 3600.0
MAX_DELAY: Final = 30 * 24 * 3600.0
DEFAULT_RETENTION: Final = 7 * 24 * 3600.0
MIN_RETENTION: Final = 60.0
"""Less would take results away from callers who are about to ask for them."""
MAX_RETENTION: Final = 365 * 24 * 3600.0

MAX_PROGRESS_TEXT: Final = 1024
MAX_PROGRESS_BODY: Final = 4 * KIB

DEFAULT_CONCURRENCY: Final = 1
MAX_CONCURRENCY: Final = 1000
DEFAULT_MAX_INSTANCES: Final = 4
MAX_INSTANCES: Final = 100
DEFAULT_IDLE_TIMEOUT: Final = 300.0
MIN_IDLE_TIMEOUT: Final = 1.0
MAX_IDLE_TIMEOUT: Final = 24 * 3600.0
MIN_MEMORY: Final = 6 * MIB
MAX_FUNCTION: Final = 256 * KIB
"""So many bytes a function takes at the most, encoded: each change of it goes to all workers as one message."""
MAX_ARGUMENTS: Final = 1000
MAX_ARGUMENT: Final = 64 * KIB
MAX_ENV: Final = 256
MAX_ENV_NAME: Final = 255
MAX_ENV_VALUE: Final = 64 * KIB
MAX_ANNOTATIONS: Final = 64
MAX_ANNOTATION_KEY: Final = 255
MAX_ANNOTATION_VALUE: Final = 64 * KIB

MAX_LOG_LINE: Final = 16 * KIB
MAX_LOG_LINES: Final = 10_000
MAX_LOG_SIZE: Final = MIB
"""So many lines, and bytes of text, of an invocation's log are kept, over all its attempts."""

SHORT_RETRY_DELAY: Final = 2.0
"""Backoffs up to this one are waited for in the worker, longer ones in the store."""

POISON_STARTS: Final = 3
"""So many starts without an end make an invocation poison."""

MAX_BROKER_MESSAGES: Final = 10_000
MAX_BROKER_BYTES: Final = 64 * MIB
"""At most so much work of one function is at the broker; the rest waits in the store."""

MAX_BROKER_LOGS: Final = 32 * MIB
"""At most so many bytes of log lines wait at the broker; where more come the oldest are dropped."""

CONTROL_INTERVAL: Final = 2.0
"""Seconds between two heartbeats of a server, and of a worker."""

CONTROL_SILENCE: Final = 10.0
"""A worker that got no heartbeat of a server for so long starts nothing; one that sent none for so long is lost."""

WORKER_LOST: Final = 2 * CONTROL_SILENCE
"""A worker that sent no heartbeat for so long has nothing and starts nothing: it has closed its own gate before."""

TOMBSTONE_KEPT: Final = 300.0
"""So long after its message was settled the tombstone of an invocation is kept: the broker may have been killed just
then, and redeliver the message."""

MAX_STOPS: Final = 1000
"""At most so many tombstones are in one message."""

MAX_CANCELLED_CALLS: Final = 10_000
"""At most so many synchronous calls whose callers went away are remembered, so that they do not start."""

MAX_SNAPSHOT_PART: Final = 1 * MIB
"""About so many bytes of a snapshot go into one message."""

MAX_MESSAGE: Final = 16 * MIB
"""No message that is published has more bytes: RabbitMQ refuses what is over its `max_message_size`, by default 16 MiB
from version 4 on, and closes the channel with all that is under way on it. The limits here keep every message below
4 MiB."""

MAX_FILTER_FUNCTIONS: Final = 100
"""So many functions may be named in a filter."""

MAX_DESTINATIONS: Final = 8
"""So many places at most get the envelope of one end."""

MAX_DEPTH: Final = 16
"""A chain of invocations that cause each other ends with so many."""

MAX_ENVELOPE_BODY: Final = 64 * KIB
"""Of each body an envelope shows so many bytes at the most, and says so where there are more."""

MAX_SECRET: Final = 64 * KIB
MAX_SECRETS: Final = 32
"""So many secrets at most are seen by one function."""
SECRET_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?")
"""The whole of the name of a secret, or of an API key."""

MAX_DEAD_LETTER_IDS: Final = 1000
"""So many dead letters at most are named in one request."""

MAX_KEY_FUNCTIONS: Final = 100
"""An API key is limited to so many functions at most, as many as a filter may name."""
MAX_KEY_RATE: Final = 1_000_000.0
MIN_KEY_RATE: Final = 0.001
"""So many calls in a second at most, and at least, an API key is limited to."""
