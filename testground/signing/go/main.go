// Is this delivery signed as it should be?  Judged by other people's libraries and Go's own cryptography.
// Reads one JSON object a line, as verify.py does, and writes `ok` or `not ok: why` for each.
package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/yaronf/httpsign"
)

type delivery struct {
	Scheme, Method, URL, Secret, Public, Algorithm, Header, Prefix, Before string
	KeyID                                                                  string `json:"key_id"`
	Headers                                                                map[string]string
	Body                                                                   []byte
}

func (d delivery) request() *http.Request {
	request := httptest.NewRequest(d.Method, d.URL, bytes.NewReader(d.Body))
	for name, value := range d.Headers {
		request.Header.Set(name, value)
	}
	return request
}

// verifier: by the algorithm that the receiver expects, whatever the signature says of itself
func (d delivery) verifier() (*httpsign.Verifier, error) {
	config := httpsign.NewVerifyConfig().SetKeyID(d.KeyID).SetAllowedAlgs([]string{d.Algorithm})
	fields := httpsign.Headers("@method", "@target-uri", "content-digest", "webhook-id")
	if d.Secret != "" {
		return httpsign.NewHMACSHA256Verifier([]byte(d.Secret), config, fields)
	}
	block, _ := pem.Decode([]byte(d.Public))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	switch public := public.(type) {
	case ed25519.PublicKey:
		return httpsign.NewEd25519Verifier(public, config, fields)
	case *ecdsa.PublicKey:
		return httpsign.NewP256Verifier(*public, config, fields)
	}
	return nil, fmt.Errorf("a key of type %T", public)
}

func verify(d delivery) error {
	switch d.Scheme {
	case "standard-webhooks":
		webhook, err := standardwebhooks.NewWebhook(d.Secret)
		if err != nil {
			return err
		}
		return webhook.Verify(d.Body, d.request().Header)
	case "standard-webhooks-ed25519":
		public, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(d.Public, "whpk_"))
		if err != nil {
			return err
		}
		content := append([]byte(d.Headers["webhook-id"]+"."+d.Headers["webhook-timestamp"]+"."), d.Body...)
		for _, signature := range strings.Split(d.Headers["webhook-signature"], " ") {
			signature, ours := strings.CutPrefix(signature, "v1a,")
			bytes, err := base64.StdEncoding.DecodeString(signature)
			if ours && err == nil && ed25519.Verify(public, content, bytes) {
				return nil
			}
		}
		return errors.New("no v1a signature verifies")
	case "hmac":
		function := map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New}[d.Algorithm]
		mac := hmac.New(function, []byte(d.Secret))
		mac.Write([]byte(d.Before))
		mac.Write(d.Body)
		if expected := d.Prefix + hex.EncodeToString(mac.Sum(nil)); d.Headers[d.Header] != expected {
			return fmt.Errorf("expected %s", expected)
		}
		return nil
	case "http-signature":
		verifier, err := d.verifier()
		if err != nil {
			return err
		}
		request := d.request()
		digest := request.Header.Values("Content-Digest")
		if err := httpsign.ValidateContentDigestHeader(digest, &request.Body, []string{httpsign.DigestSha256}); err != nil {
			return err
		}
		return httpsign.VerifyRequest("sig1", *verifier, request)
	}
	return nil
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var d delivery
		if err := json.Unmarshal(lines.Bytes(), &d); err != nil {
			fmt.Println("unknown scheme:", err)
		} else if d.Scheme == "sigv4" {
			fmt.Println("unknown scheme")
		} else if err := verify(d); err != nil {
			fmt.Println("not ok:", strings.ReplaceAll(err.Error(), "\n", " "))
		} else {
			fmt.Println("ok")
		}
	}
}
