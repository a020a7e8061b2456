#!/usr/bin/env node
// Publishes one step event to Waypost, and exits when the broker has confirmed it.
//
//     npm install amqplib
//     node examples/publish.mjs 13010 "Welcome Message" +5511999990000 --keyword 4 --option Offers
//
// AMQP_URL is the URL of the broker. EXCHANGE is the events exchange of Waypost.

import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import amqp from "amqplib";

const url = process.env.AMQP_URL ?? "amqp://guest:guest@127.0.0.1:5672/%2f";
const exchange = process.env.EXCHANGE ?? "waypost.events";

/** The event from the command line. Options that are not given are left out. */
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
  // Generate the id once per event, and keep it when you publish the event again. Receivers use it to discard duplicates.
  return { campaignId, label, phoneNumber, date: new Date().toISOString(), ...values, eventId: randomUUID() };
}

/** Resolves when the broker has confirmed. If it rejects, connect again and publish the same event again. */
function publish(channel, event) {
  return new Promise((resolve, reject) => {
    let returned = false;
    const onReturn = (message) => {
      // If no queue is bound, the broker first returns the message, and then confirms it.
      returned ||= message.properties.messageId === event.eventId;
    };
    channel.on("return", onReturn);
    const options = {
      persistent: true, // delivery_mode 2
      mandatory: true, // otherwise the broker drops and confirms the message if no queue is bound
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
  // Without a listener the process would crash. The failed call reports the error.
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
