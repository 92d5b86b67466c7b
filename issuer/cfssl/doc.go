// SPDX-License-Identifier: Apache-2.0

// Package cfssl has certificates signed by CFSSL, Cloudflare's CA: by "cfssl serve",
// or by "multirootca", whose labels name its CAs.
//
//	ca, err := cfssl.New(cfssl.Config{
//		Address:     "https://ca.example.com:8888",
//		Profile:     "web",
//		AuthKeyFile: "/run/secrets/cfssl-key",
//	})
//	chain, err := ca.Issue(ctx, csr, 0)
//
// With a key, requests are signed with it and go to the endpoint authsign, else to
// sign. What may be signed, for what use and for how long is the profile's to say, in
// the server's own configuration: a request cannot ask for a lifetime. The private key
// never leaves the caller, and CFSSL's endpoint newcert, which makes keys itself, is not
// used.
//
// An [Issuer] asks for the CA's certificate before each request, since that may have
// been renewed. It keeps nothing, and has no goroutine of its own.
//
// What losing the key costs: whoever has it can have signed what the profile allows.
// CFSSL knows no limit of names but the profile's name_whitelist: set it.
package cfssl
