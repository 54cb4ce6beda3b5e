// Receives records by the Forward protocol with the server of @fluent-org/logger, acknowledges them and
// prints each as one line of JSON: {"tag": …, "time": …, "record": {…}}.
//
//   node receiver.mjs [--host 127.0.0.1] [--port 24224] [--count N] [--seconds S] [--socket PATH]
//       [--shared-key KEY [--user NAME --password WORD]] [--tls-cert FILE --tls-key FILE [--tls-ca FILE]]
//
// With --tls-ca it asks for a certificate of that authority. --socket: listens there and not on a port.
// --port 0 takes a free one. The first line on stderr says where it listens. Ends after N records, after
// S seconds (exit 1 when N was given and not reached), or by SIGTERM.
import {readFileSync} from "node:fs";
import {FluentServer} from "@fluent-org/logger";

const options = {host: "127.0.0.1", port: "24224", count: "0", seconds: "0", socket: "", "shared-key": null, user: "",
  password: "", "tls-cert": "", "tls-key": "", "tls-ca": ""};
for (let i = 2; i < process.argv.length; i += 2) {
  const name = process.argv[i].replace(/^--/, "");
  if (!(name in options) || process.argv[i + 1] === undefined) {
    console.error(`receiver: unknown or incomplete option ${process.argv[i]}; expected one of --${Object.keys(options).join(", --")}`);
    process.exit(2);
  }
  options[name] = process.argv[i + 1];
}
const count = Number(options.count);
const seconds = Number(options.seconds);

function timeText(time) {
  if (typeof time === "number") return new Date(time * 1000).toISOString();
  const whole = new Date(time.epoch * 1000).toISOString().slice(0, 19);
  return `${whole}.${String(time.nano).padStart(9, "0")}Z`;
}

// Lines must be out before the process ends.
const end = code => process.stdout.write("", () => process.exit(code));

const server = new FluentServer({
  listenOptions: options.socket ? {path: options.socket} : {host: options.host, port: Number(options.port)},
  security: options["shared-key"] === null ? undefined : {
    serverHostname: "receiver", sharedKey: options["shared-key"], authorize: options.user !== "",
    userDict: {[options.user]: options.password},
  },
  tlsOptions: options["tls-cert"] === "" ? undefined : {
    cert: readFileSync(options["tls-cert"]), key: readFileSync(options["tls-key"]),
    ...(options["tls-ca"] ? {ca: readFileSync(options["tls-ca"]), requestCert: true, rejectUnauthorized: true} : {}),
  },
});
let received = 0;
server.on("entry", (tag, time, record) => {
  received += 1;
  process.stdout.write(JSON.stringify({tag, time: timeText(time), record}) + "\n");
  if (count > 0 && received === count) end(0);
});
process.on("SIGTERM", () => end(0));
if (seconds > 0) setTimeout(() => end(count > 0 && received < count ? 1 : 0), seconds * 1000);
await server.listen();
console.error(options.socket ? `receiver: listening on ${options.socket}`
                             : `receiver: listening on ${options.host} port ${server.port}`);
