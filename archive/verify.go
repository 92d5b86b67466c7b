// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// A Summary is what an archive holds.
type Summary struct {
	Head
	// Signer vouches for the file.
	Signer seal.KeyID
	// Managers are those of the newest list in it.
	Managers []event.ManagerKey
	// Entries are counted by the first part of their keys, each key once, and
	// Superseded are those that stand there again later.
	Entries    map[string]int
	Superseded int
	// Size is the archive's, in bytes.
	Size int64
	// Certificates are those that are not removed, and Removed those that are.
	Certificates, Removed int
	// Behind are the certificates whose copy for replicas is older than their
	// state, or missing: a manager makes up for that.
	Behind int
	// Newest is when the newest entry was signed, by its manager's clock.
	Newest time.Time
	// MaxEpoch is the highest epoch of the log and of any certificate.
	MaxEpoch uint64
}

// A verifier is what Verify knows while it reads.
type verifier struct {
	Summary
	trusted []*seal.VerifyKey
	seen    map[[16]byte]bool // keys, by the start of their SHA-256
	certs   map[string]*agreement
}

// An agreement is between a certificate's state and its copy for replicas.
type agreement struct {
	state, copy   event.Version
	current, data [sha256.Size]byte // the event in the state, and the copy
	removed       bool
	stated        bool // there is a state
	group, copied string
}

// Verify reads an archive to its end and checks it: that it is whole and sealed
// by a manager, that a manager signed each entry for its place, and that states
// and copies for replicas agree. Trusted are managers' keys, of this list of
// managers or of an earlier one from which it follows. It keeps some 200 bytes a
// certificate.
func Verify(r io.Reader, trusted []*seal.VerifyKey) (*Summary, error) {
	in, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	v := &verifier{
		Summary: Summary{Head: in.Head(), Entries: make(map[string]int)}, trusted: trusted,
		seen: make(map[[16]byte]bool), certs: make(map[string]*agreement),
	}
	for {
		e, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = v.take(e)
		}
		if err != nil {
			return nil, err
		}
	}
	last := in.Sealed()
	if v.Signer, err = last.Check(v.trusted); err != nil {
		return nil, fmt.Errorf("archive: its seal: %w", err)
	}
	v.Size = last.Offset
	if err := v.agree(); err != nil {
		return nil, err
	}
	return &v.Summary, nil
}

func (v *verifier) take(entry bus.Entry) error {
	if entry.Key == event.ManagersKey {
		set, err := event.OpenManagers(v.trusted, 0, v.Tenant, entry.Data)
		if err != nil {
			return fmt.Errorf("archive: %s: %w", entry.Key, err)
		}
		v.trusted, v.Managers = set.Trusted(), set.Keys
	}
	e, err := event.Open(v.trusted, v.Tenant, entry.Key, entry.Data)
	if err != nil {
		return fmt.Errorf("archive: the entry %s: %w", entry.Key, err)
	}
	v.count(entry.Key)
	if e.Time.After(v.Newest) {
		v.Newest = e.Time
	}
	switch b := e.Body.(type) {
	case *event.LogInfo:
		v.MaxEpoch = max(v.MaxEpoch, b.Epoch)
	case *event.State:
		a := v.cert(b.ID, b.Version)
		a.state, a.stated, a.removed, a.group = b.Version, true, b.Removed, b.Spec.Group
		if a.current = sha256.Sum256(b.Current); len(b.Current) > 0 {
			if _, err := event.Open(v.trusted, v.Tenant, event.CertificateKey(b.Spec.Group, b.ID), b.Current); err != nil {
				return fmt.Errorf("archive: the event in %s: %w", entry.Key, err)
			}
		}
	case *event.Certificate:
		v.copy(b.Group, b.ID, b.Version, entry.Data)
	case *event.Removal:
		v.copy(b.Group, b.ID, b.Version, entry.Data)
	}
	return nil
}

// count counts an entry.
func (v *verifier) count(key string) {
	sum := sha256.Sum256([]byte(key))
	short := [16]byte(sum[:])
	if v.seen[short] {
		v.Superseded++
		return
	}
	v.seen[short] = true
	scope, _, _ := strings.Cut(key, "/")
	v.Entries[scope]++
}

// cert returns what is known of a certificate that has this version.
func (v *verifier) cert(id string, at event.Version) *agreement {
	v.MaxEpoch = max(v.MaxEpoch, at.Epoch)
	a := v.certs[id]
	if a == nil {
		a = new(agreement)
		v.certs[id] = a
	}
	return a
}

func (v *verifier) copy(group, id string, at event.Version, data []byte) {
	a := v.cert(id, at)
	a.copy, a.copied, a.data = at, group, sha256.Sum256(data)
}

// agree holds each state against its copy, and counts.
func (v *verifier) agree() error {
	for id, a := range v.certs {
		switch {
		case !a.stated:
			return fmt.Errorf("archive: %s stands there for replicas, and its state does not: it is incomplete", id)
		case a.copied != "" && a.copied != a.group:
			return fmt.Errorf("archive: %s is group %q's by its state, and group %q has it", id, a.group, a.copied)
		case a.state.Less(a.copy):
			return fmt.Errorf("archive: %s: its state is at %s, and replicas have %s: it is incomplete", id, a.state, a.copy)
		case a.copy.Less(a.state):
			v.Behind++
		case a.copied != "" && !bytes.Equal(a.current[:], a.data[:]):
			return fmt.Errorf("archive: %s: what replicas have of %s is not what its state says", id, a.copy)
		}
		if a.removed {
			v.Removed++
		} else {
			v.Certificates++
		}
	}
	return nil
}
