#!/usr/bin/env python3
"""Publishes one step event to Waypost, and ends once the broker has confirmed it.

    pip install pika
    python examples/publish.py 13010 "Welcome Message" +5511999990000 --keyword 4 --option Offers

AMQP_URL says where the broker is, EXCHANGE which exchange Waypost has there.
"""

import argparse
import json
import os
import sys
import uuid
from datetime import datetime, timezone

import pika

URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
EXCHANGE = os.environ.get("EXCHANGE", "waypost.events")


def step_event():
    """The event the command line describes. What was not given is left out."""
    parser = argparse.ArgumentParser(description="Publishes one step event.")
    parser.add_argument("campaignId")
    parser.add_argument("label", help="the section's label")
    parser.add_argument("phoneNumber")
    parser.add_argument("--response", help="what the user answered")
    parser.add_argument("--option", help="the menu text chosen")
    parser.add_argument("--keyword", help="the keyword typed")
    event = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    event["date"] = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    # Made once for an event and kept when it is published again: with it, a receiver can discard duplicates.
    event["eventId"] = str(uuid.uuid4())
    return event


def publish(channel, event):
    """Returns once the broker has confirmed. On any exception: connect anew and publish the same event again."""
    channel.basic_publish(
        exchange=EXCHANGE,
        routing_key=event["campaignId"],
        body=json.dumps(event).encode(),
        properties=pika.BasicProperties(
            delivery_mode=2,  # persistent
            content_type="application/json",
            message_id=event["eventId"],
        ),
        mandatory=True,  # without it the broker drops, and confirms, what no queue is bound for
    )


def main():
    event = step_event()
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    try:
        channel = connection.channel()
        channel.confirm_delivery()  # from here on basic_publish waits for the broker's confirm
        publish(channel, event)
    finally:
        if connection.is_open:
            connection.close()
    print(f"published {event['eventId']}")


if __name__ == "__main__":
    try:
        main()
    except pika.exceptions.UnroutableError:
        sys.exit(f"not published: no queue is bound to {EXCHANGE}")
    except pika.exceptions.AMQPError as error:
        sys.exit(f"not published: {error!r}")
