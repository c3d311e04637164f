// A consumer in JavaScript, written from docs/queue.md: node consumer.mjs HOST:PORT [JOBS]
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import net from "node:net";
import { decodeMultiStream, encode } from "@msgpack/msgpack";

const [address, wanted = Infinity] = process.argv.slice(2);
const key = createHash("sha256").update("a shared secret").digest("hex"); // as compat.managers makes it of an authkey
const session = randomBytes(16);
const proof = (who, ...nonces) => {
  const proved = Buffer.concat([Buffer.from(`rpccluster-1 ${who}`), ...nonces]);
  return createHmac("sha256", key).update(proved).digest();
};

class Keeper {
  #pending = new Map(); // msgid -> the promise's functions
  #msgid = 0;

  constructor([host, port]) {
    this.socket = net.connect({ host, port, noDelay: true });
    this.#receive().catch((error) => this.#end(error.message || error.code));
  }

  call(method, ...params) {
    this.socket.write(encode([0, ++this.#msgid, method, params]));
    return new Promise((resolve, reject) => this.#pending.set(this.#msgid, { resolve, reject }));
  }

  async authenticate() {
    const mine = randomBytes(32);
    const [theirs, shown] = await this.call("rpc.authenticate", 1, "default", mine);
    if (!timingSafeEqual(proof("server", mine, theirs), shown)) throw new Error("not the server that has the key");
    await this.call("rpc.authenticate", 2, proof("client", mine, theirs));
  }

  async #receive() {
    for await (const [, msgid, error, result] of decodeMultiStream(this.socket)) {
      const { resolve, reject } = this.#pending.get(msgid);
      this.#pending.delete(msgid);
      if (error === null) resolve(result);
      else reject(new Error(error));
    }
    this.#end("the connection has ended");
  }

  #end(reason) {
    for (const { reject } of this.#pending.values()) reject(Object.assign(new Error(reason), { again: true }));
  }
}

const seen = new Set();
let [seq, done, keeper] = [0, [], null];
while (seen.size < wanted) {
  const options = { session, seq: ++seq, ack: done }; // the acks travel with the next get
  let items = null;
  while (items === null) {
    try {
      if (keeper === null) await (keeper = new Keeper(address.split(":"))).authenticate();
      items = await keeper.call("queue.get", "jobs", options);
    } catch (error) {
      if (!error.again) throw error;
      keeper = null; // again over another connection, with the same number: nothing is taken twice
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
  done = items.map(([id, attempt, value]) => (seen.add(value.number), [id, attempt]));
}
await keeper.call("queue.ack", "jobs", done);
keeper.socket.end();
console.log("Done:", seen.size, "jobs");
