// A handwritten webhook worker: RabbitMQ to webhooks, with a retry queue.
//
//   node worker.mjs BROKER_URL QUEUE WEBHOOKS_FILE
//
// The worker ends when its standard input closes.

import { readFile } from "node:fs/promises";
import amqp from "amqplib";
import { Agent, request } from "undici";

const PREFETCH = 1000;
const TIMEOUT_MS = 15_000;
const RETRY_AFTER_MS = 5_000;
const FLUSH_MS = 2;

const [brokerUrl, queue, webhooksFile] = process.argv.slice(2);
const webhooks = new Map(Object.entries(JSON.parse(await readFile(webhooksFile, "utf8"))));
const dispatcher = new Agent({ headersTimeout: TIMEOUT_MS, bodyTimeout: TIMEOUT_MS });
const connection = await amqp.connect(brokerUrl);
const channel = await connection.createChannel();
const publisher = await connection.createConfirmChannel();

const retryQueue = `${queue}.retry`;
await channel.assertQueue(retryQueue, {
  durable: true,
  arguments: {
    "x-queue-type": "quorum",
    "x-message-ttl": RETRY_AFTER_MS,
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": queue,
  },
});

// Sends one acknowledgement for all consecutive finished messages.
const finished = new Set();
let first = 1;
let flushing = false;
function acknowledge(tag) {
  finished.add(tag);
  if (!flushing) {
    flushing = true;
    setTimeout(flush, FLUSH_MS);
  }
}
function flush() {
  flushing = false;
  const begin = first;
  while (finished.delete(first)) first += 1;
  if (first > begin) channel.ack({ fields: { deliveryTag: first - 1 } }, true);
}

async function post(content) {
  const event = JSON.parse(content);
  const webhook = webhooks.get(event.campaignId);
  if (!webhook) return true;
  const { campaignId, label, phoneNumber, response, option, keyword } = event;
  const date = new Date(event.date).toISOString();
  const body = JSON.stringify({ campaignId, label, phoneNumber, date, response, option, keyword, ...webhook.body });
  const headers = { "content-type": "application/json", ...webhook.headers };
  const answer = await request(webhook.url, { method: "POST", headers, body, dispatcher });
  await answer.body.dump();
  return answer.statusCode >= 200 && answer.statusCode < 300;
}

async function deliver(message) {
  let delivered = false;
  try {
    delivered = await post(message.content);
  } catch (error) {
    console.error(`request failed: ${error.message}`);
  }
  if (!delivered) {
    await new Promise((resolve, reject) => {
      const confirmed = (error) => (error ? reject(error) : resolve());
      publisher.sendToQueue(retryQueue, message.content, { persistent: true }, confirmed);
    });
  }
  acknowledge(message.fields.deliveryTag);
}

await channel.prefetch(PREFETCH);
await channel.consume(queue, deliver);
process.stdin.on("close", () => process.exit(0)).resume();
