// Writes down every request as Node's own server reads it, one JSON object a line.
const { appendFileSync } = require("node:fs");
const http = require("node:http");

const seen = process.argv[2];
const note = (what) => appendFileSync(seen, JSON.stringify(what) + "\n");
const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    if (request.url !== "/ready") {
      note({ method: request.method, target: request.url, body: Buffer.concat(parts).toString("latin1") });
    }
    response.end("seen\n");
  });
});
server.on("clientError", (error, socket) => {
  if (error.code !== "ECONNRESET") note({ error: error.code });
  socket.destroy();
});
server.listen(0, "127.0.0.1", () => console.log(`echo: ${server.address().port}`));
