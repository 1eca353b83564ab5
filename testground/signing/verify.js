// Is this delivery signed as it should be?  Judged by other people's libraries, and OpenSSL by way of node.
// Reads one JSON object a line, as verify.py does, and writes `ok` or `not ok: why` for each.  Packages: package.json.
const { createRequire } = require("node:module");
const path = require("node:path");
const crypto = require("node:crypto");
// The packages are in the cache, not beside this file.
const load = createRequire(path.join(process.argv[2], "package.json"));
const standard = load("standardwebhooks");
const svix = load("svix");
const { httpbis, createVerifier } = load("http-message-signatures");

const must = (yes, why) => { if (!yes) throw new Error(why); };

const schemes = {
  "standard-webhooks"(c, body) {
    new standard.Webhook(c.secret).verify(body, c.headers, { jsonParse: false });
    new svix.Webhook(c.secret).verify(body.toString(), c.headers);
  },
  "standard-webhooks-ed25519"(c, body) {
    const content = Buffer.concat([Buffer.from(`${c.headers["webhook-id"]}.${c.headers["webhook-timestamp"]}.`), body]);
    const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), Buffer.from(c.public.slice(5), "base64")]);
    const key = crypto.createPublicKey({ key: spki, format: "der", type: "spki" });
    const ours = c.headers["webhook-signature"].split(" ").filter((s) => s.startsWith("v1a,"));
    must(ours.some((s) => crypto.verify(null, content, key, Buffer.from(s.slice(4), "base64"))), "no v1a signature verifies");
  },
  hmac(c, body) {
    // As the documentation shows it to receivers.
    const expected = c.prefix + crypto.createHmac(c.algorithm, c.secret).update(c.before ?? "").update(body).digest("hex");
    must(c.headers[c.header] === expected, `expected ${expected}`);
  },
  async "http-signature"(c, body) {
    const digest = crypto.createHash("sha256").update(body).digest("base64");
    must(c.headers["content-digest"] === `sha-256=:${digest}:`, "content-digest");
    const key = { id: c.key_id, algs: [c.algorithm], verify: createVerifier(c.secret ?? c.public, c.algorithm) };
    const verified = await httpbis.verifyMessage(
      { async keyLookup(parameters) { must(parameters.keyid === c.key_id, "keyid"); return key; },
        requiredParams: ["created", "keyid", "alg"], requiredFields: ["@method", "@target-uri", "content-digest", "webhook-id"] },
      { method: c.method, url: c.url, headers: c.headers });
    must(verified === true, `verified is ${verified}`);
  },
};

require("node:readline").createInterface({ input: process.stdin }).on("line", async (line) => {
  const c = JSON.parse(line);
  try {
    if (!schemes[c.scheme]) return console.log("unknown scheme");
    await schemes[c.scheme](c, Buffer.from(c.body, "base64"));
    console.log("ok");
  } catch (error) {
    console.log(`not ok: ${error.message}`.replaceAll("\n", " "));
  }
});
