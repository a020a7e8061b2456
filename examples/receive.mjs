// A receiver that takes only what is signed with its webhook's secret.
//
//     npm install standardwebhooks
//     SECRET=whsec_... node examples/receive.mjs 127.0.0.1:9000

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.SECRET);
const [host, port] = (process.argv[2] ?? "127.0.0.1:9000").split(":");

const server = createServer(async (request, response) => {
  // The bytes as they came, before they are parsed.
  const chunks = [];
  try {
    for await (const chunk of request) chunks.push(chunk);
    // Times too far from now are refused as well.
    webhook.verify(Buffer.concat(chunks).toString("utf8"), request.headers);
  } catch {
    response.writeHead(401).end();
    return;
  }
  // The same each time a delivery is sent: whoever has seen it has dealt with it.
  console.log(request.headers["webhook-id"]);
  response.writeHead(204).end();
});
server.listen(Number(port), host, () => console.log(`listening on ${host}:${server.address().port}`));
