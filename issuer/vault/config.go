// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/cahttp"
)

const (
	// DefaultMount is where Vault mounts a PKI secrets engine that is enabled without
	// a path.
	DefaultMount = "pki"
	// DefaultTimeout bounds one request, its answer included.
	DefaultTimeout = 30 * time.Second
)

// Config says which role of which Vault signs, and how to log in. Role is required;
// zero values of the others are the environment's, then the defaults.
type Config struct {
	// Address is the URL of the server: https, or http on a loopback address, as an
	// agent has it. "" is VAULT_AGENT_ADDR, else VAULT_ADDR, else
	// https://127.0.0.1:8200.
	Address string
	// Namespace is the Enterprise namespace that mounts and logins lie in; "" is
	// VAULT_NAMESPACE, else the root.
	Namespace string
	// Mount is the path of the PKI secrets engine; "" is DefaultMount.
	Mount string
	// Role is the engine's role that signs.
	Role string
	// Auth is how to log in: a [Token], [AppRole], [Kubernetes], [JWT] or
	// [Certificate]; nil is the token in VAULT_TOKEN.
	Auth Auth
	// Roots are those of the server's own certificate; nil are those of VAULT_CACERT,
	// VAULT_CACERT_BYTES or VAULT_CAPATH, else the system's.
	// WARNING: without Roots and ServerName, VAULT_SKIP_VERIFY is heard, too.
	Roots *x509.CertPool
	// ServerName is the name in the server's certificate; "" is VAULT_TLS_SERVER_NAME,
	// else the address's.
	ServerName string
	// Timeout bounds one request, its answer included; 0 is VAULT_CLIENT_TIMEOUT, else
	// DefaultTimeout.
	Timeout time.Duration
}

// complete checks the configuration and fills in what the environment does not
// decide.
func (c Config) complete() (Config, error) {
	c.Mount = cmp.Or(strings.Trim(c.Mount, "/"), DefaultMount)
	if c.Auth == nil {
		c.Auth = Token{}
	}
	switch {
	case c.Role == "":
		return c, errors.New("no role is given: one of `vault list " + c.Mount + "/roles`")
	case strings.Contains(c.Role, "/"):
		return c, fmt.Errorf("the role %q has a slash in it: give the path of the engine as the mount, and the role alone", c.Role)
	case c.Timeout < 0:
		return c, fmt.Errorf("the timeout is %s; it cannot be negative", c.Timeout)
	}
	for what, path := range map[string]string{"mount": c.Mount, "role": c.Role} {
		if err := checkPath(path); err != nil {
			return c, fmt.Errorf("the %s %q: %w", what, path, err)
		}
	}
	auth, err := c.Auth.complete()
	if err != nil {
		return c, err
	}
	c.Auth = auth
	return c, nil
}

// checkPath refuses what would lead to another place than it says.
func checkPath(path string) error {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "?#%\\") || strings.ContainsFunc(part, unprintable) {
			return errors.New("it is not a path in Vault")
		}
	}
	return nil
}

func unprintable(r rune) bool { return r <= ' ' || r > '~' }

// clients returns two clients that share their connections: one that sends a token,
// and one that never does, to log in.
func (c Config) clients() (signed, entry *api.Client, base *transport, err error) {
	settings := api.DefaultConfig() // reads the environment
	if settings.Error != nil {
		return nil, nil, nil, fmt.Errorf("the environment (VAULT_…): %w", settings.Error)
	}
	if c.Address != "" {
		settings.Address, settings.AgentAddress = c.Address, ""
	}
	if err := checkAddress(cmp.Or(settings.AgentAddress, settings.Address)); err != nil {
		return nil, nil, nil, err
	}
	settings.MaxRetries = 0 // the caller retries
	switch {
	case c.Timeout != 0:
		settings.Timeout = c.Timeout
	case os.Getenv(api.EnvVaultClientTimeout) == "":
		settings.Timeout = DefaultTimeout
	}
	base, err = newTransport(settings, c)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, client := range []**api.Client{&signed, &entry} {
		if *client, err = api.NewClient(settings); err != nil {
			return nil, nil, nil, err
		}
		(*client).ClearToken()
		if c.Namespace != "" {
			(*client).SetNamespace(c.Namespace)
		}
		// With VAULT_WRAP_TTL, every answer would come wrapped.
		(*client).SetWrappingLookupFunc(func(string, string) string { return "" })
	}
	settings.HttpClient.Transport = base
	return signed, entry, base, nil
}

// checkAddress refuses to send a token where others can read it.
func checkAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return errors.New("the address of Vault is not a URL")
	case u.Scheme == "unix" && u.Path != "":
		return nil
	case strings.Contains(address, "@") || u.RawQuery != "" || u.Fragment != "":
		return errors.New("the address of Vault has a user, a query or a fragment, which mean nothing there")
	case u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("the address %q is not a URL of Vault, such as https://vault.example.com:8200", address)
	case !cahttp.Protected(u):
		return fmt.Errorf("the address %s is not https: a token that is sent there can be read on the way", address)
	}
	return nil
}
