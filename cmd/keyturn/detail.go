// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

// detail is everything about a managed certificate.
type detail struct {
	ID          string             `json:"id"`
	Group       string             `json:"group"`
	Names       []string           `json:"names"`
	Issuer      string             `json:"issuer"`
	Fallbacks   []string           `json:"fallbacks,omitempty"` // that stand in for the issuer
	Challenge   string             `json:"challenge,omitempty"` // absent: the issuer's default, as with those below
	Profile     string             `json:"profile,omitempty"`
	Key         string             `json:"key"`
	Lifetime    string             `json:"lifetime,omitempty"` // asked for; absent: the issuer's default
	RenewBefore string             `json:"renew_before,omitempty"`
	Created     time.Time          `json:"created"`
	Changed     time.Time          `json:"changed"`
	Epoch       uint64             `json:"epoch"`
	Generation  uint64             `json:"generation"`
	Removed     bool               `json:"removed"`
	RenewAt     *time.Time         `json:"renew_at,omitempty"`
	Renewal     *renewalDetail     `json:"renewal,omitempty"` // what the CA says of when to renew
	Claim       *claimDetail       `json:"claim,omitempty"`
	Mark        *markDetail        `json:"mark,omitempty"`
	Order       *orderDetail       `json:"order,omitempty"`
	Failure     *failureDetail     `json:"failure,omitempty"`
	Hold        *holdDetail        `json:"hold,omitempty"`
	Pause       *pauseDetail       `json:"pause,omitempty"`
	Certificate *certificateDetail `json:"certificate,omitempty"`
	History     []historyRow       `json:"history"`
}

type claimDetail struct {
	Generation uint64    `json:"generation"`
	Reason     string    `json:"reason"`
	Manager    string    `json:"manager_instance"`
	At         time.Time `json:"at"`
}

type certificateDetail struct {
	Serial      string    `json:"serial"`
	SHA256      string    `json:"sha256"`
	IssuedBy    string    `json:"issued_by"`
	Issued      time.Time `json:"issued"`
	NotBefore   time.Time `json:"not_before"`
	NotAfter    time.Time `json:"not_after"`
	ChainPEM    string    `json:"chain_pem"`
	SealedKey   string    `json:"sealed_key"`    // base64
	SealedKeyTo string    `json:"sealed_key_to"` // the id of the group's key
}

func detailOf(c *manager.Managed) (*detail, error) {
	d := &detail{
		ID: c.ID, Group: c.Spec.Group, Names: c.Spec.Names, Issuer: c.Spec.Issuer, Key: c.Spec.KeyType,
		Fallbacks: c.Spec.Fallbacks, Challenge: c.Spec.Challenge, Profile: c.Spec.Profile,
		RenewBefore: c.Spec.RenewBefore, Created: c.Spec.Created, Changed: c.Changed,
		Epoch: c.Epoch, Generation: c.Generation, Removed: c.Removed, History: historyOf(c),
	}
	if c.Spec.Lifetime > 0 {
		d.Lifetime = config.Duration(c.Spec.Lifetime).String()
	}
	if at := c.RenewAt(); !at.IsZero() {
		d.RenewAt = &at
	}
	if c.Claim != nil {
		d.Claim = &claimDetail{c.Claim.Generation, c.Claim.Reason, c.Claim.Owner, c.Claim.At}
	}
	d.underWay(c)
	leaf, err := c.Leaf()
	if leaf == nil || err != nil {
		return d, err
	}
	to, err := seal.Recipient(c.Certificate.SealedKey)
	if err != nil {
		return nil, err
	}
	var chain strings.Builder
	for _, der := range c.Certificate.Chain {
		_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Builder takes all
	}
	d.Certificate = &certificateDetail{
		Serial: fmt.Sprintf("%x", leaf.SerialNumber.Bytes()), SHA256: fmt.Sprintf("%x", sha256.Sum256(leaf.Raw)),
		IssuedBy: leaf.Issuer.String(), Issued: c.Issued, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		ChainPEM: chain.String(), SealedKey: base64.StdEncoding.EncodeToString(c.Certificate.SealedKey), SealedKeyTo: to.String(),
	}
	return d, nil
}
