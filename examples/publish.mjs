#!/usr/bin/env node
// Publishes one step event to Waypost, and ends once the broker has confirmed it.
//
//     npm install amqplib
//     node examples/publish.mjs 13010 "Welcome Message" +5511999990000 --keyword 4 --option Offers
//
// AMQP_URL says where the broker is, EXCHANGE which exchange Waypost has there.

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import amqp from "amqplib";

const url = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f";
const exchange = process.env.EXCHANGE ?? "waypost.events";

/** The event the command line describes. What was not given is left out. */
function stepEvent() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { response: { type: "string" }, option: { type: "string" }, keyword: { type: "string" } },
  });
  if (positionals.length !== 3) {
    console.error("usage: publish.mjs CAMPAIGN_ID LABEL PHONE_NUMBER [--response …] [--option …] [--keyword …]");
    process.exit(2);
  }
  const [campaignId, label, phoneNumber] = positionals;
  // The id is made once for an event and kept when it is published again: with it, a receiver can discard duplicates.
  return { campaignId, label, phoneNumber, date: new Date().toISOString(), ...values, eventId: randomUUID() };
}

/** Resolves once the broker has confirmed. When it rejects: connect anew and publish the same event again. */
function publish(channel, event) {
  return new Promise((resolve, reject) => {
    let returned = false;
    const onReturn = (message) => {
      // A message that no queue is bound for is returned first, and confirmed all the same.
      returned ||= message.properties.messageId === event.eventId;
    };
    channel.on("return", onReturn);
    const options = {
      persistent: true, // delivery_mode 2
      mandatory: true, // without it the broker drops, and confirms, what no queue is bound for
      contentType: "application/json",
      messageId: event.eventId,
    };
    channel.publish(exchange, event.campaignId, Buffer.from(JSON.stringify(event)), options, (error) => {
      channel.off("return", onReturn);
      if (error) reject(error);
      else if (returned) reject(new Error(`no queue is bound to ${exchange}`));
      else resolve();
    });
  });
}

async function main() {
  const event = stepEvent();
  const connection = await amqp.connect(url);
  // The calls that fail tell as well.
  connection.on("error", () => {});
  try {
    const channel = await connection.createConfirmChannel();
    channel.on("error", (error) => console.error(error.message));
    await publish(channel, event);
  } finally {
    await connection.close();
  }
  console.log(`published ${event.eventId}`);
}

main().catch((error) => {
  console.error(`not published: ${error.message}`);
  process.exitCode = 1;
});
