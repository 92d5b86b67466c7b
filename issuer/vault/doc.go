// SPDX-License-Identifier: Apache-2.0

// Package vault has certificates signed by the PKI secrets engine of HashiCorp's
// Vault, or of OpenBao.
//
//	ca, err := vault.New(vault.Config{
//		Address: "https://vault.example.com:8200",
//		Role:    "web",
//		Auth:    vault.AppRole{RoleID: id, SecretIDFile: "/run/secrets/secret-id"},
//	})
//	chain, err := ca.Issue(ctx, csr, 0)
//
// What is not configured is taken from the environment, as Vault's own client takes
// it: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT and the rest. Wherever
// both say something, the configuration counts.
//
// Requests are signed by a role (the endpoint sign/ROLE), whose rules Vault keeps:
// which names, which keys, for how long. The private key never leaves the caller, and
// Vault's endpoint issue/ROLE, which makes keys itself, is not used.
//
// An [Issuer] logs in when it is first asked, and again when its token nears its end
// or is refused. In between it keeps the token in memory, and nowhere else. Only a
// token that cannot be had again by logging in is renewed while nobody asks, by a
// timer that [Issuer.Close] ends.
//
// What losing a login costs: whoever has it can have signed what the role allows,
// until it is revoked in Vault. Allow the role no more names than are needed, and the
// login's policy nothing but the path of the role.
package vault
