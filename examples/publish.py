#!/usr/bin/env python3
"""Publishes one step event to Waypost, and exits when the broker has confirmed it.

    pip install pika
    python examples/publish.py 13010 "Welcome Message" +5511999990000 --keyword 4 --option Offers

AMQP_URL is the URL of the broker. EXCHANGE is the events exchange of Waypost.
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
    """The event from the command line. Options that are not given are left out."""
    parser = argparse.ArgumentParser(description="Publishes one step event.")
    parser.add_argument("campaignId")
    parser.add_argument("label", help="the section's label")
    parser.add_argument("phoneNumber")
    parser.add_argument("--response", help="what the user answered")
    parser.add_argument("--option", help="the menu text chosen")
    parser.add_argument("--keyword", help="the keyword typed")
    event = {key: value for key, value in vars(parser.parse_args()).items() if value is not None}
    event["date"] = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    # Generate the id once per event, and keep it when you publish the event again. Receivers use it to discard duplicates.
    event["eventId"] = str(uuid.uuid4())
    return event


def publish(channel, event):
    """Returns when the broker has confirmed. On any exception, connect again and publish the same event again."""
    channel.basic_publish(
        exchange=EXCHANGE,
        routing_key=event["campaignId"],
        body=json.dumps(event).encode(),
        properties=pika.BasicProperties(
            delivery_mode=2,  # persistent
            content_type="application/json",
            message_id=event["eventId"],
        ),
        mandatory=True,  # otherwise the broker drops and confirms the message if no queue is bound
    )


def main():
    event = step_event()
    connection = pika.BlockingConnection(pika.URLParameters(URL))
    try:
        channel = connection.channel()
        channel.confirm_delivery()  # basic_publish now waits for the broker's confirm
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
