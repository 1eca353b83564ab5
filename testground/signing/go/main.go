// Is this delivery signed as it should be?  Judged by other people's libraries and Go's own cryptography.
// Reads one JSON object a line, as verify.py does, and writes `ok` or `not ok: why` for each.
package main

import (
	"bufio"
	"bytes"
	"context"
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

	httpsig "github.com/remitly-oss/httpsig-go"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
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

type keys struct{ d delivery }

func (k keys) FetchByKeyID(_ context.Context, _ http.Header, id string) (httpsig.KeySpecer, error) {
	if id != k.d.KeyID {
		return nil, fmt.Errorf("keyid %q", id)
	}
	spec := httpsig.KeySpec{KeyID: id, Algo: httpsig.Algorithm(k.d.Algorithm)}
	if k.d.Secret != "" {
		spec.Secret = []byte(k.d.Secret)
		return spec, nil
	}
	block, _ := pem.Decode([]byte(k.d.Public))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	spec.PubKey = public
	return spec, err
}

func (k keys) Fetch(context.Context, http.Header, httpsig.MetadataProvider) (httpsig.KeySpecer, error) {
	return nil, errors.New("no keyid")
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
		// It judges `content-digest` against the body as well.
		result, err := httpsig.Verify(d.request(), keys{d}, httpsig.VerifyProfile{
			SignatureLabel:       "sig1",
			RequiredFields:       httpsig.Fields("@method", "@target-uri", "content-digest", "webhook-id"),
			RequiredMetadata:     []httpsig.Metadata{httpsig.MetaCreated, httpsig.MetaKeyID},
			AllowedAlgorithms:    []httpsig.Algorithm{httpsig.Algo_ED25519, httpsig.Algo_ECDSA_P256_SHA256, httpsig.Algo_HMAC_SHA256},
			CreatedValidDuration: httpsig.DefaultVerifyProfile.CreatedValidDuration,
		})
		if err == nil && !result.Verified {
			return errors.New("not verified")
		}
		return err
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
