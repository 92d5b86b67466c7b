// SPDX-License-Identifier: Apache-2.0

// Package config reads Keyturn's two configurations. Both are YAML.
//
// The local one is a file beside a process, "keyturn serve --config FILE", and
// wires that process: see [Local]. Each of its settings is also a flag and an
// environment variable; [Sources] has the order in which they count.
//
//	data: /var/lib/keyturn
//	nats: 127.0.0.1:4222
//	http: 127.0.0.1:8080
//	check_in: https://ping.example.com/ID
//	log_format: json
//	log_level: info
//
// The shared one lies sealed on the bus, is the same for all managers, and is
// changed with "keyturn conf update": see [Shared].
//
//	default_issuer: internal
//	issuers:
//	  internal:
//	    type: local
//	    name: Example
//	    max_lifetime: 90d
//	  letsencrypt:
//	    type: acme
//	    directory: letsencrypt
//	    terms_agreed: true
//	    contact: ops@example.com
//	solvers:
//	  dns:
//	    type: cloudflare
//	    api_token: TOKEN
//	zones:
//	  example.com: dns
//	resolvers: [192.0.2.53]
//	defaults:
//	  issuers: [internal, letsencrypt]
//	  key: ecdsa-p256
//	  lifetime: 30d
//	  renew_before: 33%
//
// A zone says which solvers answer when an ACME CA asks for proof that a name in
// it is controlled, one name or a list; [SolverTypes] says what each type can be
// told. [Directories] are the CAs that are known by name.
//
// Reading is strict: an unknown key, a key that is there twice, a value of the
// wrong type, a key without a value, anchors, aliases, tags and a second
// document are errors. Errors are reported together, each an [Error] with line
// and key. A configuration has at most [MaxSize] bytes.
//
// Nothing here opens a file, reads the environment or keeps state.
package config
