// A client in JavaScript, written from docs/protocol.md, and calls of the shop: node client.js [HOST:PORT]
import net from "node:net";
import { decodeMultiStream, encode } from "@msgpack/msgpack";

const [REQUEST, RESPONSE, NOTIFICATION] = [0, 1, 2];

class Client {
  #pending = new Map(); // msgid -> the promise's functions
  #msgid = 0;
  #ended = false;
  #offered = false; // whether the server takes deadlines

  constructor(host, port) {
    this.socket = net.connect({ host, port, noDelay: true });
    this.#receive();
    this.#request("rpc.closing", []).then(
      (result) => Array.isArray(result?.due) && this.#end("did not run, for the server stops", result.due),
      () => {}, // the server does not know it, or the connection has ended
    );
    this.#request("rpc.discover", []).then(
      (methods) => (this.#offered = "rpc.call" in methods && "rpc.cancel" in methods),
      () => {},
    );
  }

  call(method, ...params) {
    const milliseconds = 5000;
    if (!this.#offered) return this.#request(method, params, milliseconds);
    // a call that nobody waits for any more is not begun, and one that runs is ended
    return this.#request("rpc.call", [method, params, { timeout: milliseconds / 1000 }], milliseconds);
  }

  notify(method, ...params) {
    this.socket.write(encode([NOTIFICATION, method, params]));
  }

  close() {
    this.socket.end(); // the server still answers what it has read
  }

  async #request(method, params, milliseconds) {
    if (this.#ended) throw new Error("not sent, for the connection ends");
    const msgid = (this.#msgid = (this.#msgid + 1) >>> 0);
    this.socket.write(encode([REQUEST, msgid, method, params]));
    const giveUp = () => {
      this.#settle(msgid, "no reply in time; it may still run");
      if (this.#offered) this.notify("rpc.cancel", msgid);
    };
    const timer = milliseconds && setTimeout(giveUp, milliseconds);
    const reply = new Promise((resolve, reject) => this.#pending.set(msgid, { resolve, reject }));
    return reply.finally(() => clearTimeout(timer));
  }

  async #receive() {
    try {
      for await (const [type, msgid, error, result] of decodeMultiStream(this.socket)) {
        if (type === RESPONSE) this.#settle(msgid, error, result);
      }
      this.#end("the connection has ended"); // whether it ran is not known
    } catch (error) {
      this.#end(error.message || error.code);
    }
    this.socket.destroy();
  }

  #settle(msgid, error, result) {
    const call = this.#pending.get(msgid); // none, if it was given up
    this.#pending.delete(msgid);
    if (error === null) call?.resolve(result);
    else call?.reject(new Error(error));
  }

  #end(reason, due = []) {
    this.#ended = true;
    for (const msgid of this.#pending.keys()) {
      if (!due.includes(msgid)) this.#settle(msgid, reason);
    }
  }
}

const [host, port] = (process.argv[2] ?? "127.0.0.1:18800").split(":");
const fruit = ["pear", "plum"];
const client = new Client(host, Number(port));
console.log("An apple costs", await client.call("price", "apple"));
console.log("Ordered:", await Promise.all(fruit.map((name) => client.call("order", { [name]: 2 }))));
await client.call("price", "melon").catch((error) => console.log("Refused:", error.message));
client.notify("order", { plum: 1 });
client.close();
