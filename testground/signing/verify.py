"""Is this delivery signed as it should be?  Judged by other people's libraries.

Reads one JSON object a line from standard input (scheme, method, url, headers, body in base64, keys) and writes `ok` or
`not ok: why` for each.  Packages: requirements.txt.
"""
import base64, hashlib, hmac, json, sys

from botocore import auth as aws, compat
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import HTTPMessageVerifier, HTTPSignatureKeyResolver, algorithms
from standardwebhooks.webhooks import Webhook


class Request:
    """What http_message_signatures reads of a requests.PreparedRequest."""

    def __init__(self, case):
        self.method, self.url, self.headers = case["method"], case["url"], case["headers"]
        self.body = base64.b64decode(case["body"])


def standard_webhooks(case):
    Webhook(case["secret"]).verify(base64.b64decode(case["body"]), case["headers"], json_parse=False)


def standard_webhooks_ed25519(case):
    # No library of the specification's knows v1a: this is its text, and cryptography's Ed25519.
    headers = case["headers"]
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + base64.b64decode(case["body"])
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(case["public"].removeprefix("whpk_")))
    signatures = [s[4:] for s in headers["webhook-signature"].split(" ") if s.startswith("v1a,")]
    assert signatures, "no v1a signature"
    for signature in signatures:
        try:
            return key.verify(base64.b64decode(signature), content)
        except Exception:
            continue
    raise ValueError("no v1a signature verifies")


def hmac_body(case):
    digest = hmac.new(case["secret"].encode(), case.get("before", "").encode() + base64.b64decode(case["body"]), case["algorithm"])
    assert hmac.compare_digest(case["headers"][case["header"]], case["prefix"] + digest.hexdigest())


def http_signature(case):
    algorithm = {
        "ed25519": algorithms.ED25519, "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256, "hmac-sha256": algorithms.HMAC_SHA256,
    }[case["algorithm"]]

    class Keys(HTTPSignatureKeyResolver):
        def resolve_public_key(self, key_id):
            assert key_id == case["key_id"], key_id
            if "secret" in case:
                return case["secret"].encode()
            return serialization.load_pem_public_key(case["public"].encode())

    request = Request(case)
    digest = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
    assert request.headers["content-digest"] == f"sha-256=:{digest}:", "content-digest"
    verified = HTTPMessageVerifier(signature_algorithm=algorithm, key_resolver=Keys()).verify(request)
    covered = set().union(*(result.covered_components for result in verified))
    missing = {'"@method"', '"@target-uri"', '"content-digest"', '"webhook-id"'} - covered
    assert not missing, missing


def sigv4(case):
    headers = case["headers"]
    names = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names)
    request = AWSRequest(case["method"], case["url"], headers={n: headers[n] for n in names if n != "host"}, data=base64.b64decode(case["body"]))
    assert headers["x-amz-content-sha256"] == hashlib.sha256(request.body).hexdigest(), "body"
    stamp = headers["x-amz-date"]

    class Signer(aws.SigV4Auth):
        def _modify_request_before_signing(self, request):
            request.headers["X-Amz-Date"] = stamp

    # `add_auth` would take the time of now.
    signer = Signer(Credentials(case["access_key_id"], case["secret_access_key"]), case["service"], case["region"])
    request.context["timestamp"] = stamp
    expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
    assert headers["authorization"].endswith(f"Signature={expected}"), expected


SCHEMES = {
    "standard-webhooks": standard_webhooks, "standard-webhooks-ed25519": standard_webhooks_ed25519, "hmac": hmac_body,
    "http-signature": http_signature, "sigv4": sigv4,
}

for line in sys.stdin:
    case = json.loads(line)
    try:
        SCHEMES[case["scheme"]](case)
        print("ok", flush=True)
    except KeyError as error:
        if case["scheme"] not in SCHEMES:
            print("unknown scheme", flush=True)
        else:
            print(f"not ok: no {error}", flush=True)
    except Exception as error:
        print(f"not ok: {type(error).__name__} {error}".replace("\n", " "), flush=True)
