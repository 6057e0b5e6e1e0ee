"""The life cycle of invocations and deliveries, as data and pure functions: given a value and an event, the next value.

``invocation`` and ``delivery`` say how each lives; ``custody`` says who holds them meanwhile, of both alike. A
transition returns a :class:`Step`, the next value with what is to be done besides storing it, or a :class:`Refusal`.
"""

from homing_core.lifecycle import custody, delivery, invocation
from homing_core.lifecycle.custody import Custody, Held, Token, Transfer
from homing_core.lifecycle.delivery import Delivery, DeliveryState
from homing_core.lifecycle.invocation import Record
from homing_core.lifecycle.states import ENDS, State
from homing_core.lifecycle.step import Effect, Refusal, Step

__all__ = [
    "ENDS",
    "Custody",
    "Delivery",
    "DeliveryState",
    "Effect",
    "Held",
    "Record",
    "Refusal",
    "State",
    "Step",
    "Token",
    "Transfer",
    "custody",
    "delivery",
    "invocation",
]
