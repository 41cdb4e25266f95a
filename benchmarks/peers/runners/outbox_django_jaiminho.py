"""django-jaiminho: `save_to_outbox`, keeping the order, and the relayer of `manage.py events_relay`."""

from benchmarks.event import envelope
from benchmarks.peers.outbox_runner import run, send, setup_peer


def main() -> None:
    setup_peer("jaiminho", JAIMINHO_CONFIG={"PUBLISH_STRATEGY": "keep-order", "DEFAULT_CAPTURE_EXCEPTION": None})
    from jaiminho.relayer import EventRelayer
    from jaiminho.send import save_to_outbox

    leave = save_to_outbox(send)  # beside `send`, not in its place: it is pickled by name, which is the shortest
    run(relay=EventRelayer().relay, write=lambda number: leave(envelope(number)))


if __name__ == "__main__":
    main()
