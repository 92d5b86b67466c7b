// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"errors"
	"fmt"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// Accounts are what NATS servers of one's own have to know of who may do what: an
// operator, who signs accounts, the account of the servers themselves, and one
// for Keyturn, whose signing key makes the credentials of its users. They are made
// once for all servers of a cluster. The operator's key is not kept: whoever wants
// other accounts makes all of them anew, or has the tools of NATS make them.
type Accounts struct {
	operator, system, account, signing nkeys.KeyPair
	revoked                            []string // public keys of users
}

// accountName is the name, for people, of the account that all tenants are in.
const accountName = "KEYTURN"

// NewAccounts makes new keys.
func NewAccounts() (*Accounts, error) {
	a := new(Accounts)
	var errs [4]error
	a.operator, errs[0] = nkeys.CreateOperator()
	a.system, errs[1] = nkeys.CreateAccount()
	a.account, errs[2] = nkeys.CreateAccount()
	a.signing, errs[3] = nkeys.CreateAccount()
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("bus: making the keys of NATS accounts: %w", err)
	}
	return a, nil
}

// AccountsOf returns those that these keys are of: those of a server whose users move
// with their credentials. The users (public keys) that are revoked stay so.
func AccountsOf(operator, system, account, signing nkeys.KeyPair, revoked []string) *Accounts {
	return &Accounts{operator, system, account, signing, revoked}
}

// Config is the part of the servers' configuration by which they know the
// accounts. It holds no secret.
func (a *Accounts) Config() (text []byte, err error) {
	system, err1 := a.system.PublicKey()
	account, err2 := a.account.PublicKey()
	operator, err3 := a.operator.PublicKey()
	signing, err4 := a.signing.PublicKey()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, fmt.Errorf("bus: the keys of NATS accounts: %w", err)
	}
	o := jwt.NewOperatorClaims(operator)
	o.Name, o.SystemAccount = "keyturn", system
	s := jwt.NewAccountClaims(system)
	s.Name = "SYS"
	k := AccountClaims(account, accountName, signing)
	for _, user := range a.revoked {
		k.Revoke(user)
	}
	tokens := make([]string, 3)
	for i, c := range []jwt.Claims{o, s, k} {
		if tokens[i], err = c.Encode(a.operator); err != nil {
			return nil, fmt.Errorf("bus: signing NATS accounts: %w", err)
		}
	}
	return fmt.Appendf(nil, `# Who may do what: the same on every server of the cluster. There is no secret in here.
operator: %s
system_account: %s
resolver: MEMORY
resolver_preload: {
  %s: %s
  %s: %s
}
`, tokens[0], system, system, tokens[1], account, tokens[2]), nil
}

// AccountClaims say that an account may use JetStream without a limit of its own,
// and whose key signs its users.
func AccountClaims(account, name, signing string) *jwt.AccountClaims {
	c := jwt.NewAccountClaims(account)
	c.Name = name
	c.SigningKeys.Add(signing)
	c.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
		MaxAckPending: jwt.NoLimit,
	}
	return c
}

// Secret is what NewMint makes the credentials of Keyturn's users of.
func (a *Accounts) Secret() ([]byte, error) {
	account, err := a.account.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("bus: the keys of NATS accounts: %w", err)
	}
	return MintSecret(a.signing, account)
}

// Admin makes credentials, in the format of a NATS .creds file, of a user who may do
// everything in Keyturn's account: he makes the streams.
func (a *Accounts) Admin() ([]byte, error) {
	return newCredentials(a.account, func(c *jwt.UserClaims) { c.Name = "admin" })
}

// Monitor makes credentials of a user of the system's account who may ask how the
// servers write to the disk, and nothing else.
func (a *Accounts) Monitor() ([]byte, error) {
	return newCredentials(a.system, func(c *jwt.UserClaims) {
		c.Name = "monitor"
		c.Pub.Allow.Add(pingServers)
		c.Sub.Allow.Add(inboxPrefix(c.Subject) + ".>")
	})
}

// newCredentials makes the credentials of a new user of an account.
func newCredentials(account nkeys.KeyPair, grant func(*jwt.UserClaims)) ([]byte, error) {
	return newUserCredentials(func(public string) (string, error) {
		claims := jwt.NewUserClaims(public)
		grant(claims)
		return claims.Encode(account)
	})
}

// FirstManager makes credentials, in the format of a NATS .creds file, for a tenant's
// first manager. Those of others are granted by a manager.
func (m *Mint) FirstManager(tenant string) ([]byte, error) {
	return newUserCredentials(func(public string) (string, error) { return m.Manager(tenant, "first", public) })
}

func newUserCredentials(grant func(public string) (string, error)) ([]byte, error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("bus: making credentials: %w", err)
	}
	defer user.Wipe()
	public, err := user.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("bus: making credentials: %w", err)
	}
	token, err := grant(public)
	if err != nil {
		return nil, fmt.Errorf("bus: making credentials: %w", err)
	}
	return formatCredentials(token, user)
}
