// Writes tests/data/verification/*.json: requests that each template and scheme must take, with where they come from.
//
//   made      the provider's own library signed it
//   accepted  signed here by the provider's documentation, and the provider's own library says that it is right
//   example   published by the provider with its result
//   ours      signed here by the provider's documentation; no library signs or verifies, so nobody else has judged it
//
// Run by testground/vectors/generate.sh, which installs the libraries outside of the repository. Committed vectors change only when
// a provider does; keys and certificates are made anew by each run.

import { createRequire } from 'node:module';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import https from 'node:https';
import { execFileSync } from 'node:child_process';
import { EventEmitter } from 'node:events';

const home = process.argv[2]; // where node_modules, venv and go are
const out = process.argv[3];
const require = createRequire(path.join(home, 'index.js'));
const load = async (name) => require(name);
const version = (name) => {
  let at = path.join(home, 'node_modules', name, 'package.json');
  return `${name} ${JSON.parse(fs.readFileSync(at)).version} (npm)`;
};

const NOW = '2026-11-21T12:00:00Z';
const MS = Date.parse(NOW);
const S = String(MS / 1000);
const RealDate = Date;
globalThis.Date = class extends RealDate {
  constructor(...a) { a.length ? super(...a) : super(MS); }
  static now() { return MS; }
};

const PUBLIC = 'https://hooks.example.com';
const TARGET = '/v1/ingest/shop/orders';
const URL_ = PUBLIC + TARGET;
const BODY = '{"id":"evt_1","type":"order.paid","amount":12.50,"name":"Zoë \\u00fc","note":"a/b & c"}';
const hmac = (alg, key, text, enc) => crypto.createHmac(alg, key).update(text).digest(enc);

let written = 0;
const assert = (ok, what) => { if (!ok) throw new Error(`not accepted: ${what}`); };

/** One file: a template or a row's scheme, and its requests. */
function file(name, { template, scheme, source, by, note, vectors }) {
  const all = vectors.map((v) => ({
    name: v.name ?? 'a request',
    method: v.method ?? 'POST',
    public_url: v.public_url ?? PUBLIC,
    target: v.target ?? TARGET,
    headers: Object.entries(v.headers ?? {}).flatMap(([k, val]) => [].concat(val).map((one) => [k.toLowerCase(), one])),
    body_base64: Buffer.from(v.body ?? BODY).toString('base64'),
    secrets: v.secrets,
    now: NOW,
    ...(v.documents ? { documents: v.documents } : {}),
    ...(v.tolerance_s ? { tolerance_s: v.tolerance_s } : {}),
    ...(v.signed_headers ? { signed_headers: v.signed_headers } : {}),
    ...(v.body_unsigned ? { body_unsigned: true } : {}),
    ...(v.url_signed ? { url_signed: true } : {}),
    ...(v.expect ? { expect: v.expect } : {}),
  }));
  fs.writeFileSync(path.join(out, `${name}.json`), JSON.stringify({ ...(template ? { template } : { scheme }), source, by, ...(note ? { note } : {}), vectors: all }, null, 2) + '\n');
  written += 1;
}

const py = (code, input) => execFileSync(path.join(home, 'venv/bin/python'), ['-c', code], { input: JSON.stringify(input) }).toString().trim();
const pyVersion = (name) => `${name} ${py(`import importlib.metadata as m; print(m.version("${name}"))`)} (PyPI)`;

// Stripe
{
  const Stripe = await load('stripe');
  const stripe = new (Stripe.default ?? Stripe)('sk_test_1');
  const secret = 'whsec_test_secret';
  const head = stripe.webhooks.generateTestHeaderString({ payload: BODY, secret, timestamp: Number(S) });
  const other = head.replace(/v1=.*/, 'v1=' + '0'.repeat(64)) + ',' + head.split(',')[1] + ',v0=00';
  stripe.webhooks.constructEvent(BODY, other, secret);
  file('stripe', { template: 'stripe', source: 'made', by: version('stripe'), vectors: [
    { headers: { 'Stripe-Signature': head }, secrets: [secret], tolerance_s: 300, signed_headers: ['stripe-signature'] },
    { name: 'two signatures and an old scheme', headers: { 'Stripe-Signature': other }, secrets: ['whsec_next', secret], tolerance_s: 300 },
  ] });
}
// Svix and those who send by it
for (const [name, lib, verify] of [
  ['svix', 'svix', null],
  ['clerk', '@clerk/backend', async (h, s) => { const { verifyWebhook } = await load('@clerk/backend/webhooks'); await verifyWebhook(new Request(URL_, { method: 'POST', headers: h, body: BODY }), { signingSecret: s }); }],
  ['resend', 'resend', async (h, s) => { const { Resend } = await load('resend'); new Resend('re_1').webhooks.verify({ payload: BODY, headers: { id: h['svix-id'], timestamp: h['svix-timestamp'], signature: h['svix-signature'] }, webhookSecret: s }); }],
]) {
  const { Webhook } = await load('svix');
  const secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
  const id = 'msg_2KWPBgLlAfxdpx2AI54pPJ85f4W';
  const headers = { 'svix-id': id, 'svix-timestamp': S, 'svix-signature': 'v1,AAAA ' + new Webhook(secret).sign(id, new Date(MS), BODY) };
  if (verify) await verify(headers, secret);
  file(name, { template: name, source: verify ? 'accepted' : 'made', by: verify ? `${version(lib)}, signed by ${version('svix')}` : version('svix'), vectors: [{ headers, secrets: [secret], tolerance_s: 300, signed_headers: ['svix-id', 'svix-signature', 'svix-timestamp'] }] });
}
// Standard Webhooks
{
  const { Webhook } = await load('standardwebhooks');
  const secret = 'whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD';
  const id = 'msg_p5jXN8AQM9LWM0D4loKWxJek';
  const sign = new Webhook(secret).sign(id, new Date(MS), BODY);
  file('standard-webhooks', { scheme: { standard_webhooks: { tolerance_ms: 300000 } }, source: 'made', by: version('standardwebhooks'), vectors: [
    { headers: { 'webhook-id': id, 'webhook-timestamp': S, 'webhook-signature': sign }, secrets: [secret], tolerance_s: 300, signed_headers: ['webhook-id', 'webhook-signature', 'webhook-timestamp'] },
    { name: 'without the prefix', headers: { 'webhook-id': id, 'webhook-timestamp': S, 'webhook-signature': 'v2,x ' + sign }, secrets: [secret.slice(6)], tolerance_s: 300 },
  ] });
  const { publicKey, privateKey } = crypto.generateKeyPairSync('ed25519');
  const raw = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32).toString('base64');
  const sig = crypto.sign(null, Buffer.from(`${id}.${S}.${BODY}`), privateKey).toString('base64');
  file('standard-webhooks-ed25519', { scheme: { standard_webhooks: { tolerance_ms: 300000 } }, source: 'ours', by: 'node:crypto, by the specification', note: 'No published library signs or verifies v1a.', vectors: [
    { headers: { 'webhook-id': id, 'webhook-timestamp': S, 'webhook-signature': `v1a,${sig}` }, secrets: [`whpk_${raw}`], tolerance_s: 300, signed_headers: ['webhook-id', 'webhook-signature', 'webhook-timestamp'] },
  ] });
}
// GitHub, and the same header elsewhere
{
  const { sign, verify } = await import(path.join(home, 'node_modules/@octokit/webhooks-methods/dist-src/index.js')).catch(async () => await import(path.join(home, 'node_modules/@octokit/webhooks-methods/dist-bundle/index.js')));
  const secret = "It's a Secret to Everybody";
  file('github', { template: 'github', source: 'made', by: `${version('@octokit/webhooks-methods')}; the second is GitHub's documentation`, vectors: [
    { headers: { 'X-Hub-Signature-256': await sign(secret, BODY) }, secrets: [secret], signed_headers: ['x-hub-signature-256'] },
    { name: 'documented example', headers: { 'X-Hub-Signature-256': 'sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17' }, body: 'Hello, World!', secrets: [secret] },
  ] });
  const documented = 'a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9';
  assert(hmac('sha256', secret, 'Hello World!', 'hex') === documented, 'bitbucket');
  file('bitbucket', { template: 'bitbucket', source: 'example', by: "Atlassian's documentation, 'Manage webhooks'", vectors: [
    { headers: { 'X-Hub-Signature': `sha256=${documented}` }, body: 'Hello World!', secrets: [secret], signed_headers: ['x-hub-signature'] },
  ] });
}
// Slack
{
  const secret = '8f742231b10e8888abcd99yyyzzz85a5';
  const sign = (body) => py('import sys,json\nfrom slack_sdk.signature import SignatureVerifier\na=json.load(sys.stdin)\nprint(SignatureVerifier(a["s"]).generate_signature(timestamp=a["t"], body=a["b"]))', { s: secret, t: S, b: body });
  const challenge = '{"token":"Jhj5dZrVaK7ZwHHjRyZWjbDl","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}';
  const documentedBody = 'token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c';
  assert('v0=' + hmac('sha256', secret, `v0:1531420618:${documentedBody}`, 'hex') === 'v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503', 'slack documentation');
  file('slack', { template: 'slack', source: 'made', by: pyVersion('slack_sdk'), vectors: [
    { headers: { 'X-Slack-Signature': sign(BODY), 'X-Slack-Request-Timestamp': S }, secrets: [secret], tolerance_s: 300, signed_headers: ['x-slack-signature', 'x-slack-request-timestamp'] },
    { name: 'url_verification', headers: { 'X-Slack-Signature': sign(challenge), 'X-Slack-Request-Timestamp': S }, body: challenge, secrets: [secret], expect: { kind: 'slack', body: '3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P' } },
  ] });
}
// Twilio
{
  const twilio = await load('twilio');
  const token = '12345';
  const params = { CallSid: 'CA1234567890ABCDE', Caller: '+14158675310', Digits: '1234', From: '+14158675310', To: '+18005551212', Body: 'a b&c=ü' };
  const form = new URLSearchParams(params).toString();
  const sign = (url, p) => twilio.getExpectedTwilioSignature(token, url, p);
  const json = '{"property":"value","boolean":true}';
  const hashed = `${TARGET}?foo=1&bodySHA256=${twilio.getExpectedBodyHash(json)}`;
  const formType = { 'Content-Type': 'application/x-www-form-urlencoded; charset=utf-8' };
  file('twilio', { template: 'twilio', source: 'made', by: version('twilio'), vectors: [
    { headers: { ...formType, 'X-Twilio-Signature': sign(URL_, params) }, body: form, secrets: [token], signed_headers: ['x-twilio-signature'], url_signed: true },
    { name: 'with the port in the URL', headers: { ...formType, 'X-Twilio-Signature': sign(`${PUBLIC}:443${TARGET}?a=b`, params) }, target: `${TARGET}?a=b`, body: form, secrets: ['other', token], url_signed: true },
    { name: 'a JSON body', headers: { 'Content-Type': 'application/json', 'X-Twilio-Signature': sign(PUBLIC + hashed, {}) }, target: hashed, body: json, secrets: [token], url_signed: true },
    { name: 'several values of a name', headers: { ...formType, 'X-Twilio-Signature': sign(URL_, { MediaUrl: ['b', 'a'], A: '1' }) }, body: 'MediaUrl=b&MediaUrl=a&A=1', secrets: [token], url_signed: true },
  ] });
}
// SendGrid
{
  const { EventWebhook } = await load('@sendgrid/eventwebhook');
  const { publicKey, privateKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const key = publicKey.export({ format: 'der', type: 'spki' }).toString('base64');
  const sig = crypto.sign('sha256', Buffer.from(S + BODY), privateKey).toString('base64');
  const wh = new EventWebhook();
  assert(wh.verifySignature(wh.convertPublicKeyToECDSA(key), BODY, sig, S), 'sendgrid');
  const documented = { key: 'MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==', sig: 'MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=', t: '1600112502' };
  const docBody = JSON.stringify([{ email: 'hello@world.com', event: 'dropped', reason: 'Bounced Address', sg_event_id: 'ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA', sg_message_id: 'LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0', 'smtp-id': '<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>', timestamp: 1600112492 }]) + '\r\n';
  assert(wh.verifySignature(wh.convertPublicKeyToECDSA(documented.key), docBody, documented.sig, documented.t), "sendgrid's own test");
  const h = (sig, t) => ({ 'X-Twilio-Email-Event-Webhook-Signature': sig, 'X-Twilio-Email-Event-Webhook-Timestamp': t });
  const signed_headers = ['x-twilio-email-event-webhook-timestamp'];
  file('sendgrid', { template: 'sendgrid', source: 'accepted', by: `${version('@sendgrid/eventwebhook')}; the second is from its own tests`, vectors: [
    { headers: h(sig, S), secrets: [key], signed_headers },
    { name: "of the library's tests", headers: h(documented.sig, documented.t), body: docBody, secrets: [documented.key], signed_headers },
    { name: 'a key in PEM', headers: h(sig, S), secrets: [publicKey.export({ format: 'pem', type: 'spki' })], signed_headers },
  ] });
}
// Shopify
{
  const secret = 'hush';
  await import(path.join(home, 'node_modules/@shopify/shopify-api/dist/esm/adapters/node/index.mjs')).catch(() => load('@shopify/shopify-api/adapters/node'));
  const { shopifyApi, ApiVersion } = await import(path.join(home, 'node_modules/@shopify/shopify-api/dist/esm/lib/index.mjs')).catch(() => load('@shopify/shopify-api'));
  const shopify = shopifyApi({ apiKey: 'k', apiSecretKey: secret, scopes: ['read_orders'], hostName: 'hooks.example.com', apiVersion: Object.values(ApiVersion).at(-2), isEmbeddedApp: false, logger: { level: 0, log: () => {} } });
  const sig = hmac('sha256', secret, BODY, 'base64');
  const headers = { 'X-Shopify-Hmac-Sha256': sig, 'X-Shopify-Topic': 'orders/paid', 'X-Shopify-Shop-Domain': 'a.myshopify.com', 'X-Shopify-API-Version': '2025-01', 'X-Shopify-Webhook-Id': 'b' };
  const answer = await shopify.webhooks.validate({ rawBody: BODY, rawRequest: { method: 'POST', url: URL_, headers }, rawResponse: {} });
  assert(answer.valid, `shopify ${JSON.stringify(answer)}`);
  file('shopify', { template: 'shopify', source: 'accepted', by: version('@shopify/shopify-api'), vectors: [{ headers, secrets: [secret], signed_headers: ['x-shopify-hmac-sha256'] }] });
}
// Square
{
  const { WebhooksHelper } = await load('square');
  const key = 'asdf1234';
  const sig = hmac('sha256', key, URL_ + BODY, 'base64');
  assert(await WebhooksHelper.verifySignature({ requestBody: BODY, signatureHeader: sig, signatureKey: key, notificationUrl: URL_ }), 'square');
  file('square', { template: 'square', source: 'accepted', by: version('square'), vectors: [{ headers: { 'x-square-hmacsha256-signature': sig }, secrets: [key], signed_headers: ['x-square-hmacsha256-signature'], url_signed: true }] });
}
// HubSpot
{
  const { Signature } = await load('@hubspot/api-client');
  const clientSecret = 'yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy';
  const sig = Signature.getSignature('POST', 'v3', { clientSecret, requestBody: BODY, url: URL_, timestamp: MS });
  file('hubspot', { template: 'hubspot', source: 'made', by: version('@hubspot/api-client'), vectors: [{ headers: { 'X-HubSpot-Signature-v3': sig, 'X-HubSpot-Request-Timestamp': String(MS) }, secrets: [clientSecret], tolerance_s: 300, signed_headers: ['x-hubspot-signature-v3', 'x-hubspot-request-timestamp'], url_signed: true }] });
}
// Discord
{
  const { verifyKey } = await load('discord-interactions');
  const { publicKey, privateKey } = crypto.generateKeyPairSync('ed25519');
  const key = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32).toString('hex');
  const vector = async (name, body, expect) => {
    const sig = crypto.sign(null, Buffer.from(S + body), privateKey).toString('hex');
    assert(await verifyKey(body, sig, S, key), 'discord');
    return { name, headers: { 'X-Signature-Ed25519': sig, 'X-Signature-Timestamp': S }, body, secrets: [key], tolerance_s: 300, signed_headers: ['x-signature-ed25519', 'x-signature-timestamp'], expect };
  };
  file('discord', { template: 'discord', source: 'accepted', by: version('discord-interactions'), vectors: [
    await vector('an interaction', '{"type":2,"token":"A_UNIQUE_TOKEN","data":{"name":"cardsearch"},"version":1}'),
    await vector('a ping', '{"type":1,"token":"x","id":"1","version":1}', { kind: 'discord', body: '{"type":1}' }),
    await vector('a ping of webhook events', '{"version":1,"application_id":"1","type":0}', { kind: 'discord', body: '' }),
    await vector('a webhook event', '{"version":1,"application_id":"1","type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}'),
  ] });
}
// Paddle
{
  const { Paddle } = await load('@paddle/paddle-node-sdk');
  const secret = 'pdl_ntfset_01gkdqvwh1qgvqvbm7sqg2nvcq_test';
  const sig = `ts=${S};h1=${hmac('sha256', secret, `${S}:${BODY}`, 'hex')}`;
  assert(await new Paddle('k').webhooks.isSignatureValid(BODY, secret, sig), 'paddle');
  file('paddle', { template: 'paddle', source: 'accepted', by: version('@paddle/paddle-node-sdk'), vectors: [{ headers: { 'Paddle-Signature': sig }, secrets: [secret], tolerance_s: 300, signed_headers: ['paddle-signature'] }] });
}
// Linear
{
  const linear = await load('@linear/sdk/webhooks').catch(() => load('@linear/sdk'));
  const Client = linear.LinearWebhookClient ?? linear.LinearWebhooks;
  const secret = 'lin_wh_1';
  const body = JSON.stringify({ action: 'create', type: 'Issue', data: { id: '1' }, webhookTimestamp: MS });
  const sig = hmac('sha256', secret, body, 'hex');
  const client = new Client(secret);
  assert(client.verify(Buffer.from(body), sig, MS), 'linear');
  file('linear', { template: 'linear', source: 'accepted', by: version('@linear/sdk'), vectors: [{ headers: { 'Linear-Signature': sig }, body, secrets: [secret], tolerance_s: 60, signed_headers: ['linear-signature'] }] });
}
// Adyen
{
  const { default: Hmac } = await load('@adyen/api-library/lib/src/utils/hmacValidator.js');
  const validator = new Hmac();
  const key = '44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056';
  const item = (n) => ({ additionalData: {}, amount: { currency: 'EUR', value: 1130 + n }, pspReference: `799145278667335${n}`, originalReference: '', eventCode: 'AUTHORISATION', eventDate: NOW, merchantAccountCode: 'TestMerchant', merchantReference: 'TestPayment-1407325143704', success: 'true' });
  const body = (items) => JSON.stringify({ live: 'false', notificationItems: items.map((i) => { i.additionalData.hmacSignature = validator.calculateHmac(i, key); return { NotificationRequestItem: i }; }) });
  file('adyen', { template: 'adyen', source: 'made', by: version('@adyen/api-library'), note: 'Only some fields of the body are signed.', vectors: [
    { body: body([item(7)]), secrets: [key], body_unsigned: true },
    { name: 'two items', body: body([item(1), item(2)]), secrets: [key], body_unsigned: true },
  ] });
  const sig = validator.calculateHmacSignature(BODY, key);
  file('adyen-platform', { template: 'adyen-platform', source: 'made', by: version('@adyen/api-library'), vectors: [{ headers: { HmacSignature: sig }, secrets: [key], signed_headers: ['hmacsignature'] }] });
}
// Mailgun
{
  const mailgun = (await load('mailgun-js'))({ apiKey: 'key-1', domain: 'example.com', mute: true });
  const token = 'a8ce0edb2dd8301dee6c2405235584e45aa91d1e9f979f3de0';
  const sig = hmac('sha256', 'key-1', S + token, 'hex');
  assert(mailgun.validateWebhook(S, token, sig), 'mailgun');
  const body = (t, k, s) => JSON.stringify({ signature: { timestamp: t, token: k, signature: s }, 'event-data': { event: 'opened' } });
  file('mailgun', { template: 'mailgun', source: 'accepted', by: version('mailgun-js'), note: 'The body is not signed: time and token are.', vectors: [{ body: body(S, token, sig), secrets: ['key-1'], tolerance_s: 3600, body_unsigned: true }] });
}
// PagerDuty, by the Go library
{
  const key = 'pd_1';
  const sig = 'v1=' + '0'.repeat(64) + ',v1=' + hmac('sha256', key, BODY, 'hex');
  const go = path.join(home, 'go');
  fs.writeFileSync(path.join(go, 'main.go'), `package main\nimport ("io";"net/http";"os";"bytes"\n"github.com/PagerDuty/go-pagerduty/webhookv3")\nfunc main(){b,_:=io.ReadAll(os.Stdin);r,_:=http.NewRequest("POST","http://x/",bytes.NewReader(b));r.Header.Set("X-PagerDuty-Signature",os.Args[2]);if e:=webhookv3.VerifySignature(r,os.Args[1]);e!=nil{panic(e)}}\n`);
  execFileSync('go', ['run', '-mod=mod', '.', key, sig], { cwd: go, input: BODY });
  const v = /go-pagerduty (v\S+)/.exec(fs.readFileSync(path.join(go, 'go.mod')))[1];
  file('pagerduty', { template: 'pagerduty', source: 'accepted', by: `github.com/PagerDuty/go-pagerduty ${v} (Go)`, vectors: [{ headers: { 'X-PagerDuty-Signature': sig }, secrets: [key], signed_headers: ['x-pagerduty-signature'] }] });
}
// Amazon SNS
const tmp = fs.mkdtempSync('/tmp/vectors-');
const openssl = (...args) => execFileSync('openssl', args, { cwd: tmp, stdio: ['ignore', 'pipe', 'ignore'] });
{
  openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'sns.key', '-out', 'sns.pem', '-days', '36500', '-subj', '/CN=sns.amazonaws.com');
  const pem = fs.readFileSync(path.join(tmp, 'sns.pem'), 'utf8');
  const key = fs.readFileSync(path.join(tmp, 'sns.key'));
  const cert = 'https://sns.us-east-1.amazonaws.com/SimpleNotificationService-7ff5318490ec183fbaddaa2a969abfda.pem';
  const topic = 'arn:aws:sns:us-east-1:123456789012:orders';
  const Validator = await load('sns-validator');
  https.get = (_, done) => { const r = new EventEmitter(); r.statusCode = 200; process.nextTick(() => { r.emit('data', pem); r.emit('end'); }); done(r); return new EventEmitter(); };
  const vector = async (name, message, sv, expect) => {
    message = { ...message, MessageId: '22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324', TopicArn: topic, Timestamp: NOW, SignatureVersion: sv, SigningCertURL: cert };
    const text = ['Message', 'MessageId', 'Subject', 'SubscribeURL', 'Timestamp', 'Token', 'TopicArn', 'Type'].filter((k) => k in message).map((k) => `${k}\n${message[k]}\n`).join('');
    message.Signature = crypto.sign(sv === '1' ? 'sha1' : 'sha256', Buffer.from(text), key).toString('base64');
    await new Promise((ok, no) => new Validator().validate(JSON.stringify(message), (e) => (e ? no(e) : ok())));
    return { name, headers: { 'Content-Type': 'text/plain; charset=UTF-8', 'x-amz-sns-message-type': message.Type }, body: JSON.stringify(message), secrets: [topic], documents: { [cert]: pem }, body_unsigned: true, expect };
  };
  const confirm = { Type: 'SubscriptionConfirmation', Token: '2336412f37', Message: 'You have chosen to subscribe', SubscribeURL: `https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=${topic}&Token=2336412f37` };
  file('aws-sns', { template: 'aws-sns', source: 'accepted', by: version('sns-validator'), note: 'The certificate is ours: the library judges where it is, not who issued it.', vectors: [
    await vector('version 1', { Type: 'Notification', Subject: 'My First Message', Message: 'Hello world!' }, '1'),
    await vector('version 2', { Type: 'Notification', Message: BODY }, '2'),
    await vector('a confirmation', confirm, '2', { confirm: confirm.SubscribeURL }),
  ] });
}
// PayPal
{
  openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '36500', '-subj', '/CN=Hookstream test authority');
  openssl('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', 'pp.key', '-out', 'pp.csr', '-subj', '/CN=messageverificationcerts.paypal.com');
  fs.writeFileSync(path.join(tmp, 'ext'), 'subjectAltName=DNS:messageverificationcerts.paypal.com\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n');
  openssl('x509', '-req', '-in', 'pp.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'pp.pem', '-days', '36500', '-extfile', 'ext');
  const pem = fs.readFileSync(path.join(tmp, 'pp.pem'), 'utf8');
  const id = '69cd13f0-d67a-11e5-baa3-778b53f4ae55', webhook = '7VD69585CX5120734';
  const text = py('import sys,json\nfrom paypalrestsdk.notifications import WebhookEvent as W\na=json.load(sys.stdin)\nprint(W._get_expected_sig(a["i"], a["t"], a["w"], a["b"]))', { i: id, t: NOW, w: webhook, b: BODY });
  const sig = crypto.sign('sha256', Buffer.from(text), fs.readFileSync(path.join(tmp, 'pp.key'))).toString('base64');
  const cert = 'https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77';
  file('paypal', { template: 'paypal', source: 'accepted', by: `${pyVersion('paypalrestsdk')} gives the signed text`, note: 'Certificate and key are ours.', vectors: [{
    headers: { 'PAYPAL-TRANSMISSION-ID': id, 'PAYPAL-TRANSMISSION-TIME': NOW, 'PAYPAL-TRANSMISSION-SIG': sig, 'PAYPAL-AUTH-ALGO': 'SHA256withRSA', 'PAYPAL-CERT-URL': cert },
    secrets: [webhook], documents: { [cert]: pem }, signed_headers: ['paypal-transmission-id', 'paypal-transmission-time'] }] });
  fs.writeFileSync(path.join(out, 'paypal-authority.pem'), fs.readFileSync(path.join(tmp, 'ca.pem')));
}
// JWT and Pub/Sub
{
  const jose = await import(path.join(home, 'node_modules/jose/dist/webapi/index.js'));
  const claims = (t, extra = {}) => new jose.SignJWT(extra).setIssuer('https://issuer.example').setAudience(['a', 'https://hooks.example.com']).setExpirationTime(Number(S) + 3600).setNotBefore(Number(S) - 5);
  const keys = [], tokens = {};
  for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA']) {
    const { publicKey, privateKey } = await jose.generateKeyPair(alg, { extractable: true });
    keys.push({ ...(await jose.exportJWK(publicKey)), kid: alg.toLowerCase(), use: 'sig', alg });
    tokens[alg] = await claims().setProtectedHeader({ alg, kid: alg.toLowerCase() }).sign(privateKey);
  }
  const jwks = JSON.stringify({ keys });
  const url = 'https://issuer.example/jwks.json';
  const scheme = (jwks_url) => ({ jwt: { header: 'authorization', jwks_url, issuers: ['https://issuer.example'], audience: { is: 'https://hooks.example.com' } } });
  const vectors = (f) => Object.entries(tokens).map(([alg, token]) => ({ name: alg, headers: { Authorization: `Bearer ${token}` }, body_unsigned: true, ...f }));
  file('jwt', { scheme: scheme(null), source: 'made', by: version('jose'), note: 'The body is not signed.', vectors: vectors({ secrets: [jwks] }) });
  file('jwt-url', { scheme: scheme(url), source: 'made', by: version('jose'), note: 'The body is not signed.', vectors: vectors({ secrets: [], documents: { [url]: jwks } }) });

  const { OAuth2Client } = await load('google-auth-library');
  const { publicKey, privateKey } = await jose.generateKeyPair('RS256', { extractable: true });
  const email = 'push@project.iam.gserviceaccount.com';
  const token = await new jose.SignJWT({ email, email_verified: true, azp: '1', sub: '1' }).setProtectedHeader({ alg: 'RS256', kid: 'g1', typ: 'JWT' }).setIssuer('https://accounts.google.com').setAudience(URL_).setIssuedAt(Number(S)).setExpirationTime(Number(S) + 3600).sign(privateKey);
  await new OAuth2Client().verifySignedJwtWithCertsAsync(token, { g1: await jose.exportSPKI(publicKey) }, URL_, ['https://accounts.google.com', 'accounts.google.com']);
  const certs = 'https://www.googleapis.com/oauth2/v3/certs';
  file('pubsub', { template: 'pubsub', source: 'accepted', by: `${version('google-auth-library')}, signed by ${version('jose')}`, note: 'The body is not signed.', vectors: [{ headers: { Authorization: `Bearer ${token}` }, secrets: [email], documents: { [certs]: JSON.stringify({ keys: [{ ...(await jose.exportJWK(publicKey)), kid: 'g1', alg: 'RS256', use: 'sig' }] }) }, body_unsigned: true, url_signed: true }] });
}
// Of those without a library that signs or verifies
const ours = (name, vectors, note) => file(name, { template: name, source: 'ours', by: "node:crypto, by the provider's documentation", note: note ?? 'No library of the provider signs or verifies.', vectors });
const plain = (name, header, alg, enc, prefix = '') => ours(name, [{ headers: { [header]: prefix + hmac(alg, 'secret', BODY, enc) }, secrets: ['secret'], signed_headers: [header.toLowerCase()] }]);
plain('intercom', 'X-Hub-Signature', 'sha1', 'hex', 'sha1=');
plain('typeform', 'Typeform-Signature', 'sha256', 'base64', 'sha256=');
plain('vercel', 'x-vercel-signature', 'sha1', 'hex');
plain('sentry', 'Sentry-Hook-Signature', 'sha256', 'hex');
plain('launchdarkly', 'X-LD-Signature', 'sha256', 'hex');
ours('calendly', [{ headers: { 'Calendly-Webhook-Signature': `t=${S},v1=${hmac('sha256', 'secret', `${S}.${BODY}`, 'hex')}` }, secrets: ['secret'], tolerance_s: 300, signed_headers: ['calendly-webhook-signature'] }]);
ours('zendesk', [{ headers: { 'X-Zendesk-Webhook-Signature': hmac('sha256', 'secret', NOW + BODY, 'base64'), 'X-Zendesk-Webhook-Signature-Timestamp': NOW }, secrets: ['secret'], tolerance_s: 3600, signed_headers: ['x-zendesk-webhook-signature', 'x-zendesk-webhook-signature-timestamp'] }]);
ours('docusign', [{ headers: { 'X-DocuSign-Signature-1': hmac('sha256', 'first', BODY, 'base64'), 'X-DocuSign-Signature-2': hmac('sha256', 'secret', BODY, 'base64') }, secrets: ['secret'], signed_headers: ['x-docusign-signature-2'] }]);
ours('dropbox', [
  { headers: { 'X-Dropbox-Signature': hmac('sha256', 'secret', BODY, 'hex') }, secrets: ['secret'], signed_headers: ['x-dropbox-signature'] },
  { name: 'a challenge', method: 'GET', target: `${TARGET}?challenge=abc-123_x`, body: '', secrets: ['secret'], expect: { kind: 'dropbox', body: 'abc-123_x', unsigned: true } },
]);
for (const name of ['meta', 'whatsapp']) ours(name, [{ headers: { 'X-Hub-Signature-256': 'sha256=' + hmac('sha256', 'secret', BODY, 'hex') }, secrets: ['secret'], signed_headers: ['x-hub-signature-256'] }], "The Node library that did is gone from npm.");
ours('woocommerce', [
  { headers: { 'X-WC-Webhook-Signature': hmac('sha256', 'secret', BODY, 'base64') }, secrets: ['secret'], signed_headers: ['x-wc-webhook-signature'] },
  { name: 'a ping', body: 'webhook_id=17', headers: { 'Content-Type': 'application/x-www-form-urlencoded' }, secrets: ['secret'], expect: { kind: 'woocommerce', body: '', unsigned: true } },
]);
{
  const id = 'e76c6bd4-55c9-4987-8304-da1588d8988b', t = '2026-11-21T11:59:58.634234626Z';
  const vector = (name, type, body, expect) => ({ name, headers: { 'Twitch-Eventsub-Message-Id': id, 'Twitch-Eventsub-Message-Timestamp': t, 'Twitch-Eventsub-Message-Type': type, 'Twitch-Eventsub-Message-Signature': 'sha256=' + hmac('sha256', 's3cRe7xyz0', id + t + body, 'hex') }, body, secrets: ['s3cRe7xyz0'], signed_headers: ['twitch-eventsub-message-id', 'twitch-eventsub-message-timestamp', 'twitch-eventsub-message-signature'], expect });
  ours('twitch', [vector('a notification', 'notification', BODY), vector('a challenge', 'webhook_callback_verification', '{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"id":"1"}}', { kind: 'twitch', body: 'pogchamp-kappa-360noscope-vohiyo' })]);
}
{
  const vector = (name, body, expect) => ({ name, headers: { 'x-zm-request-timestamp': S, 'x-zm-signature': 'v0=' + hmac('sha256', 'secret', `v0:${S}:${body}`, 'hex') }, body, secrets: ['secret'], tolerance_s: 300, signed_headers: ['x-zm-signature', 'x-zm-request-timestamp'], expect });
  const token = 'qgg8vlvZRS6UYooatFL8Aw';
  ours('zoom', [vector('an event', BODY), vector('endpoint.url_validation', `{"payload":{"plainToken":"${token}"},"event_ts":${MS},"event":"endpoint.url_validation"}`, { kind: 'zoom', body: JSON.stringify({ plainToken: token, encryptedToken: hmac('sha256', 'secret', token, 'hex') }) })]);
}
const credentials = 'The credentials are the same in each request, so there is nothing to sign.';
ours('gitlab', [{ headers: { 'X-Gitlab-Token': 'secret token' }, secrets: ['secret token'], signed_headers: ['x-gitlab-token'], body_unsigned: true }], credentials);
ours('postmark', [{ headers: { Authorization: 'Basic ' + Buffer.from('postmark:pass:word').toString('base64') }, secrets: ['postmark:pass:word'], body_unsigned: true }], credentials);
ours('okta', [
  { headers: { Authorization: 'my-shared-secret' }, secrets: ['my-shared-secret'], signed_headers: ['authorization'], body_unsigned: true },
  { name: 'the one-time challenge', method: 'GET', body: '', headers: { Authorization: 'my-shared-secret', 'X-Okta-Verification-Challenge': 'Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0hLPZ_Pg' }, secrets: ['my-shared-secret'], signed_headers: ['authorization'], body_unsigned: true, expect: { kind: 'okta', body: '{"verification":"Me_rShK8JHsTnbyYrWXCEoMGbM_zsZ6k0hLPZ_Pg"}' } },
], credentials);
// What no provider here uses, described by hand
file('hmac-sha512', { scheme: { hmac: { algorithm: 'sha512', signatures: [{ header: 'x-signature' }], encoding: 'base64', prefix: 'v9 ', content: ['method', { literal: ' ' }, 'path', { literal: '\n' }, 'body'], secret: 'base64' } }, source: 'ours', by: 'node:crypto', vectors: [
  { headers: { 'X-Signature': 'v9 ' + hmac('sha512', Buffer.from('a key of bytes'), `POST ${TARGET}\n${BODY}`, 'base64') }, secrets: [Buffer.from('a key of bytes').toString('base64')], signed_headers: ['x-signature'], url_signed: true },
] });
fs.rmSync(tmp, { recursive: true });
console.log(`${written} files`);
