// SPDX-License-Identifier: Apache-2.0

package event

import (
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/seal"
)

// Names says which managed certificates of a group hold exactly this set of
// names. It is claimed before a certificate's state exists, so that two makers
// of one certificate cannot both win.
type Names struct {
	Group string
	Names []string
	// Holders are ids, the oldest first: more than one only where that was
	// forced, none once all are removed.
	Holders []string
	// Newest is the newest holder's spec, so that whoever finds a claim whose
	// state was never written can write it.
	Newest *Spec
}

// MaxHolders is how many managed certificates can have the same names.
const MaxHolders = 100

const (
	namesGroup tag = iota + 1
	namesName
	namesHolder
	namesNewest
)

func (n *Names) kind() Type  { return TypeNames }
func (n *Names) key() string { return NamesKey(n.Group, n.Names) }

func (n *Names) fields(f *codec) {
	f.string(namesGroup, &n.Group, maxWord)
	f.strings(namesName, &n.Names, MaxNames, maxName)
	f.strings(namesHolder, &n.Holders, MaxHolders, maxWord)
	pointer(f, namesNewest, &n.Newest)
}

func (n *Names) check() error {
	if err := CheckName(n.Group); err != nil {
		return fmt.Errorf("the group: %w", err)
	}
	if len(n.Names) == 0 || len(n.Names) > MaxNames {
		return fmt.Errorf("%d names: 1 to %d are allowed", len(n.Names), MaxNames)
	}
	if len(n.Holders) > MaxHolders {
		return fmt.Errorf("%d certificates with the same names: at most %d are allowed", len(n.Holders), MaxHolders)
	}
	for _, id := range n.Holders {
		if err := CheckID(id); err != nil {
			return err
		}
	}
	if n.Newest != nil {
		return n.Newest.check()
	}
	return nil
}

// Config is the shared configuration: YAML, sealed to the managers.
type Config struct{ Sealed []byte }

const configSealed tag = 1

func (c *Config) kind() Type      { return TypeConfig }
func (c *Config) key() string     { return ConfigKey }
func (c *Config) fields(f *codec) { f.bytes(configSealed, &c.Sealed) }

func (c *Config) check() error { return sealedIsThere(c.Sealed) }

func sealedIsThere(b []byte) error {
	if len(b) == 0 {
		return errors.New("nothing sealed in it")
	}
	return nil
}

// Seal seals the configuration's text to the managers.
func (c *Config) Seal(tenant string, to *seal.PublicKey, text []byte) (err error) {
	c.Sealed, err = to.Seal(associated(c.kind(), tenant, c.key(), func(*codec) {}), text)
	return err
}

// Open returns the configuration's text.
func (c *Config) Open(tenant string, keys []*seal.PrivateKey) ([]byte, error) {
	return seal.Open(keys, associated(c.kind(), tenant, c.key(), func(*codec) {}), c.Sealed)
}

// IssuerState is what a named issuer keeps on the bus for all managers: the
// built-in CA's keys, an ACME account, or its kind alone.
type IssuerState struct {
	Name string
	// Kind is the issuer's type in the configuration, such as "local".
	Kind string
	// Roots are the CA certificates (DER) to trust for what it issues, where
	// the issuer is its own root.
	Roots [][]byte
	// Sealed is the issuer's own encoding, sealed to the managers under
	// Associated; empty for one that keeps nothing.
	Sealed []byte
}

const (
	issuerName tag = iota + 1
	issuerKind
	issuerRoot
	issuerSealed
)

func (s *IssuerState) kind() Type  { return TypeIssuerState }
func (s *IssuerState) key() string { return IssuerKey(s.Name) }

func (s *IssuerState) fields(f *codec) {
	f.string(issuerName, &s.Name, maxWord)
	f.string(issuerKind, &s.Kind, maxWord)
	f.blobs(issuerRoot, &s.Roots, MaxChain)
	f.bytes(issuerSealed, &s.Sealed)
}

func (s *IssuerState) check() error {
	if err := CheckName(s.Name); err != nil {
		return fmt.Errorf("the issuer: %w", err)
	}
	return nil
}

// Associated is the associated data that Sealed is bound to.
func (s *IssuerState) Associated(tenant string) []byte {
	return associated(s.kind(), tenant, s.key(), func(f *codec) { f.string(issuerKind, &s.Kind, maxWord) })
}

// Group is a group's public key: what certificate keys are sealed to.
type Group struct {
	Name string
	// Key is a seal.PublicKey.
	Key []byte
	// Retiring are former keys to which certificates are still sealed; replicas
	// keep them.
	Retiring []FormerKey
	// Retired are former keys that nothing needs any more, the newest last.
	Retired []FormerKey
	// Removed says that the group was removed: no certificate, no member is left,
	// and its name can be used for a new one.
	Removed bool
}

// A FormerKey was a group's key until At, and, once it is retired, nothing has
// needed it since At.
type FormerKey struct {
	ID seal.KeyID
	At time.Time
	// Reason is one of the reasons for a generation.
	Reason string
}

const (
	groupName tag = iota + 1
	groupKey
	groupRetiring tag = optional | iota
	groupRetired
	groupRemoved
)

const (
	formerID tag = iota + 1
	formerAt
	formerReason
)

func (k *FormerKey) fields(f *codec) {
	f.keyID(formerID, &k.ID)
	f.time(formerAt, &k.At)
	f.string(formerReason, &k.Reason, maxWord)
}

func (g *Group) kind() Type  { return TypeGroup }
func (g *Group) key() string { return GroupKey(g.Name) }

func (g *Group) fields(f *codec) {
	f.string(groupName, &g.Name, maxWord)
	f.bytes(groupKey, &g.Key)
	messages(f, groupRetiring, &g.Retiring, MaxKeys)
	messages(f, groupRetired, &g.Retired, MaxHistory)
	f.bool(groupRemoved, &g.Removed)
}

func (g *Group) check() error {
	if err := CheckName(g.Name); err != nil {
		return fmt.Errorf("the group: %w", err)
	}
	_, err := seal.NewPublicKey(g.Key)
	return err
}

// LogInfo describes the log itself.
type LogInfo struct {
	// Epoch starts at 1 and is raised by a restore.
	Epoch uint64
}

const logEpoch tag = 1

func (l *LogInfo) kind() Type      { return TypeLogInfo }
func (l *LogInfo) key() string     { return LogInfoKey }
func (l *LogInfo) fields(f *codec) { f.uint(logEpoch, &l.Epoch) }

func (l *LogInfo) check() error {
	if l.Epoch == 0 {
		return errors.New("epochs start at 1")
	}
	return nil
}
