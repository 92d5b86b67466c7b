// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/vault/api"
)

// An Auth is a way to log in: a [Token], [AppRole], [Kubernetes], [JWT] or
// [Certificate]. What it names a file for is read anew for each login.
type Auth interface {
	// complete checks the settings and fills in their defaults.
	complete() (Auth, error)
	// mount is the path of the auth method below auth/; "" where there is none.
	mount() string
	// parameters are those of a login. A secret that came unwrapped before is given
	// in its place.
	parameters(unwrapped string) (map[string]any, error)
	// once says that there is no second login: the token has to be kept alive.
	once() bool
	// advice is what to do when a login is refused.
	advice() string
}

// Token is a token that was made elsewhere. If it can be renewed, it is, before it
// ends.
type Token struct {
	// Value is the token. With neither Value nor File it is that in VAULT_TOKEN.
	Value string
	// File is what the token is read from, as an agent writes it.
	File string
}

// AppRole logs in by Vault's AppRole method.
type AppRole struct {
	Mount    string // "" is "approle"
	RoleID   string
	SecretID string
	// SecretIDFile is what the secret ID is read from, in place of SecretID.
	SecretIDFile string
	// Wrapped says that the secret ID is a wrapping token: it is unwrapped once, and
	// the secret ID is then kept in memory alone.
	Wrapped bool
}

// DefaultServiceAccountToken is where Kubernetes puts the token of a pod's service
// account.
const DefaultServiceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// Kubernetes logs in by the token of a service account.
type Kubernetes struct {
	Mount string // "" is "kubernetes"
	Role  string
	// TokenFile is what the token is read from; "" is DefaultServiceAccountToken.
	TokenFile string
}

// JWT logs in by a signed token of an identity provider.
type JWT struct {
	Mount string // "" is "jwt"
	Role  string // "" is the default role of the mount
	Value string // the token
	// File is what the token is read from, in place of Value.
	File string
}

// Certificate logs in by a TLS client certificate.
type Certificate struct {
	Mount string // "" is "cert"
	Role  string // "" is whichever role of the mount fits
	// CertFile and KeyFile are PEM files. They are read for each connection. "" are
	// those of VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, which are read once.
	CertFile, KeyFile string
}

func (a Token) complete() (Auth, error) {
	if a.Value != "" && a.File != "" {
		return nil, errors.New("a token and a file with a token are given: leave one of them out")
	}
	if a.Value == "" && a.File == "" {
		a.Value = os.Getenv(api.EnvVaultToken)
	}
	if a.Value == "" && a.File == "" {
		return nil, errors.New("no way to log in is given: configure one, or set VAULT_TOKEN")
	}
	return a, nil
}

// checkMount is checkPath for the path of an auth method.
func checkMount(path string) error {
	if err := checkPath(path); err != nil {
		return fmt.Errorf("logging in: the mount %q: %w", path, err)
	}
	return nil
}

func (a AppRole) complete() (Auth, error) {
	a.Mount = cmp.Or(strings.Trim(a.Mount, "/"), "approle")
	switch {
	case a.RoleID == "":
		return nil, errors.New("logging in by AppRole: no role ID is given: `vault read auth/" + a.Mount + "/role/NAME/role-id` shows it")
	case a.SecretID != "" && a.SecretIDFile != "":
		return nil, errors.New("logging in by AppRole: a secret ID and a file with one are given: leave one of them out")
	case a.Wrapped && a.SecretID == "" && a.SecretIDFile == "":
		return nil, errors.New("logging in by AppRole: the secret ID is said to be wrapped, and none is given")
	}
	return a, checkMount(a.Mount)
}

func (a Kubernetes) complete() (Auth, error) {
	a.Mount = cmp.Or(strings.Trim(a.Mount, "/"), "kubernetes")
	a.TokenFile = cmp.Or(a.TokenFile, DefaultServiceAccountToken)
	if a.Role == "" {
		return nil, errors.New("logging in by Kubernetes: no role is given: one of `vault list auth/" + a.Mount + "/role`")
	}
	return a, checkMount(a.Mount)
}

func (a JWT) complete() (Auth, error) {
	a.Mount = cmp.Or(strings.Trim(a.Mount, "/"), "jwt")
	if (a.Value == "") == (a.File == "") {
		return nil, errors.New("logging in by JWT: give the token or the file that it is read from")
	}
	return a, checkMount(a.Mount)
}

func (a Certificate) complete() (Auth, error) {
	a.Mount = cmp.Or(strings.Trim(a.Mount, "/"), "cert")
	switch {
	case (a.CertFile == "") != (a.KeyFile == ""):
		return nil, errors.New("logging in by certificate: give the files of the certificate and of its key, both")
	case a.CertFile == "" && os.Getenv(api.EnvVaultClientCert) == "":
		return nil, errors.New("logging in by certificate: no files are given, and VAULT_CLIENT_CERT is not set")
	}
	return a, checkMount(a.Mount)
}

func (a Token) mount() string       { return "" }
func (a AppRole) mount() string     { return a.Mount }
func (a Kubernetes) mount() string  { return a.Mount }
func (a JWT) mount() string         { return a.Mount }
func (a Certificate) mount() string { return a.Mount }

func (a Token) once() bool     { return true }
func (a AppRole) once() bool   { return a.Wrapped }
func (Kubernetes) once() bool  { return false }
func (JWT) once() bool         { return false }
func (Certificate) once() bool { return false }

func (a Token) parameters(string) (map[string]any, error) {
	token, err := given(a.Value, a.File)
	return map[string]any{"token": token}, err
}

func (a AppRole) parameters(unwrapped string) (map[string]any, error) {
	p := map[string]any{"role_id": a.RoleID}
	secret, err := unwrapped, error(nil)
	if secret == "" {
		secret, err = given(a.SecretID, a.SecretIDFile)
	}
	if secret != "" { // a role may be bound to addresses instead
		p["secret_id"] = secret
	}
	return p, err
}

func (a Kubernetes) parameters(string) (map[string]any, error) {
	token, err := given("", a.TokenFile)
	return map[string]any{"role": a.Role, "jwt": token}, err
}

func (a JWT) parameters(string) (map[string]any, error) {
	token, err := given(a.Value, a.File)
	return map[string]any{"role": a.Role, "jwt": token}, err
}

func (a Certificate) parameters(string) (map[string]any, error) {
	p := map[string]any{}
	if a.Role != "" {
		p["name"] = a.Role
	}
	return p, nil
}

// maxSecret bounds a file with a secret, in bytes. Tokens of Kubernetes have some
// thousand.
const maxSecret = 64 << 10

// given returns a secret that is a value or stands in a file, "" if neither is given.
func given(value, file string) (string, error) {
	if file == "" {
		return value, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("what to log in with: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	secret := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return "", fmt.Errorf("what to log in with: %w", err)
	case secret == "" || len(text) > maxSecret:
		return "", fmt.Errorf("what to log in with: %s has %d bytes; 1 to %d are expected", file, len(text), maxSecret)
	}
	return secret, nil
}

func (a Token) advice() string {
	return "the token has ended, was revoked, or is not one of this Vault: give a new one"
}

func (a AppRole) advice() string {
	return "look at the role ID, and give a new secret ID if the old one has ended or is used up: `vault write -f auth/" + a.Mount + "/role/NAME/secret-id`"
}

func (a Kubernetes) advice() string {
	return "look at the service accounts and namespaces that are bound to the role: `vault read auth/" + a.Mount + "/role/" + a.Role + "`"
}

func (a JWT) advice() string {
	return "look whether the token has ended, and at the claims that are bound to the role: `vault read auth/" + a.Mount + "/role/" + cmp.Or(a.Role, "NAME") + "`"
}

func (a Certificate) advice() string {
	return "look whether the certificate has ended, and whether a role trusts its CA and names: `vault read auth/" + a.Mount + "/certs/" + cmp.Or(a.Role, "NAME") + "`"
}
