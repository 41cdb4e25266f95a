"""What redis_events tells a project about. All are sent with ``send_robust``: listening in never changes an outcome."""

from django.dispatch import Signal

event_published = Signal()
"""After a batch was handed to Redis. Arguments: ``batch``, a sequence of Outgoing."""

publish_failed = Signal()
"""After events were lost on their way out. Arguments: ``batch``, a sequence of Outgoing; ``error``."""

event_settled = Signal()
"""After a batch of deliveries was settled. Arguments: ``results``, a sequence of Result."""

gap_detected = Signal()
"""After a listener came back to pub/sub. Arguments: ``channels``; ``since``, a datetime; ``seconds``, the gap's length.

What was published to the channels in between has not reached this listener.
"""
