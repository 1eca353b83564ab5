module hookstream.io/testground/signing

go 1.24

require (
	github.com/remitly-oss/httpsig-go v1.2.0
	github.com/standard-webhooks/standard-webhooks/libraries v0.0.1
)

require github.com/dunglas/httpsfv v1.0.2 // indirect
