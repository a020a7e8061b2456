"""A handwritten webhook worker: RabbitMQ to webhooks, with a retry queue.

    python worker.py BROKER_URL QUEUE WEBHOOKS_FILE

The worker ends when its standard input closes.
"""

import asyncio
import json
import sys
from datetime import datetime, timezone

import aio_pika
import aiohttp
import uvloop

PREFETCH = 1000
TIMEOUT_SECONDS = 15
RETRY_AFTER_MS = 5_000
FLUSH_SECONDS = 0.002
STANDARD = ("campaignId", "label", "phoneNumber", "date", "response", "option", "keyword")


class Acknowledgements:
    """Sends one acknowledgement for all consecutive finished messages."""

    def __init__(self):
        self.finished = {}
        self.first = 1
        self.flushing = None

    def add(self, message):
        self.finished[message.delivery_tag] = message
        if self.flushing is None:
            self.flushing = asyncio.create_task(self.flush())

    async def flush(self):
        await asyncio.sleep(FLUSH_SECONDS)
        self.flushing, last = None, None
        while message := self.finished.pop(self.first, None):
            last = message
            self.first += 1
        if last is not None:
            await last.ack(multiple=True)


def render(event, webhook):
    body = {name: event[name] for name in STANDARD if name in event}
    date = datetime.fromisoformat(event["date"]).astimezone(timezone.utc)
    body["date"] = date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(body | webhook.get("body", {}))


async def main(broker_url, queue_name, webhooks_file):
    with open(webhooks_file, encoding="utf-8") as file:
        webhooks = json.load(file)
    connection = await aio_pika.connect(broker_url)
    channel = await connection.channel(publisher_confirms=False)
    await channel.set_qos(prefetch_count=PREFETCH)
    publisher = await connection.channel()
    retry_queue = f"{queue_name}.retry"
    arguments = {
        "x-queue-type": "quorum",
        "x-message-ttl": RETRY_AFTER_MS,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue_name,
    }
    await publisher.declare_queue(retry_queue, durable=True, arguments=arguments)
    acknowledgements = Acknowledgements()
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    connector = aiohttp.TCPConnector(limit=PREFETCH)

    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def post(content):
            event = json.loads(content)
            webhook = webhooks.get(event["campaignId"])
            if webhook is None:
                return True
            headers = {"content-type": "application/json"} | webhook.get("headers", {})
            async with session.post(webhook["url"], data=render(event, webhook), headers=headers) as answer:
                await answer.read()
                return 200 <= answer.status < 300

        async def deliver(message):
            delivered = False
            try:
                delivered = await post(message.body)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                print(f"request failed: {error!r}", file=sys.stderr)
            if not delivered:
                again = aio_pika.Message(message.body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                await publisher.default_exchange.publish(again, routing_key=retry_queue)
            acknowledgements.add(message)

        queue = await channel.get_queue(queue_name)
        await queue.consume(deliver)
        await asyncio.to_thread(sys.stdin.read)


uvloop.run(main(*sys.argv[1:]))
