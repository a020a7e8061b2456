// A receiver that accepts only requests signed with the secret of its webhook.
//
//     npm install standardwebhooks
//     SECRET=whsec_... node examples/receive.mjs 127.0.0.1:9000

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.SECRET);
const [host, port] = (process.argv[2] ?? "127.0.0.1:9000").split(":");

const server = createServer(async (request, response) => {
  // Verify the received bytes before you parse them.
  const chunks = [];
  try {
    for await (const chunk of request) chunks.push(chunk);
    // This also refuses a timestamp that differs from now by more than five minutes.
    webhook.verify(Buffer.concat(chunks).toString("utf8"), request.headers);
  } catch {
    response.writeHead(401).end();
    return;
  }
  // Every attempt of a delivery has the same webhook-id. A real receiver skips an id that it has processed.
  console.log(request.headers["webhook-id"]);
  response.writeHead(204).end();
});
server.listen(Number(port), host, () => console.log(`listening on ${host}:${server.address().port}`));
