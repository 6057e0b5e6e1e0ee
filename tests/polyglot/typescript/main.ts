// Shows that a client gets on with a homing server: `main.ts connect-node|grpc-js CONFIG`. Prints a line of JSON for each
// case, and for each rpc once it was answered; see test_conformance.py.
import { cases } from "./cases.ts";
import { connect as connectNode } from "./connect_node.ts";
import { connect as grpcJs } from "./grpc_js.ts";
import { type Config, Suite } from "./suite.ts";
import { keepalive, pings } from "./transport.ts";

const [name, config] = process.argv.slice(2);
const suite = new Suite(name, JSON.parse(config) as Config, name === "grpc-js" ? grpcJs : connectNode);

// These take long, and do so by themselves.
const idle = [suite.run("keepalive", keepalive), suite.run("too-many-pings", pings)];
for (const [name, run] of Object.entries(cases)) {
  await suite.run(name, run);
}
await Promise.all(idle);
process.exit();
